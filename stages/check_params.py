"""Check all of params.yaml and what it names, before another stage depends on a part of it.

DVC reruns a stage when a key that the stage names changes, so no stage would notice a misspelt key.
This stage depends on the whole file. It always writes the same output, so that no other stage
reruns after it.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from roofseg.core.errors import UserError
from roofseg.core.files import write_json
from roofseg.models.roof_model import build_model
from roofseg.recipe.params import Params, parse_mapping, read_params
from roofseg.recipe.split import read_nudges, read_split
from roofseg.tiles.licence import read_licence
from stages import run

TILE_STAGES = Path("data/dvc.yaml")


def main() -> None:
    params = read_params(Path("params.yaml"))
    check_dataset(params.dataset)
    check_models(params)
    write_json(Path("metrics/params_check.json"), {"params.yaml": "valid"})


def check_dataset(name: str) -> None:
    """Raise UserError unless data/NAME holds its tables, its licence, and tiles or their origin.

    The origin of tiles is a .dvc file beside their folder, or a stage in data/dvc.yaml.
    """
    folder = Path("data") / name
    if not folder.is_dir():
        found = sorted(path.name for path in Path("data").glob("*/"))
        raise UserError(
            f"params.yaml: dataset: found {name!r}, but there is no folder {folder}; data/ has: "
            f"{', '.join(found) or 'none'}"
        )
    read_split(folder)
    read_nudges(folder)
    read_licence(folder)
    outputs = stage_outputs(TILE_STAGES) if TILE_STAGES.is_file() else set()
    for tiles in (folder / "imgs", folder / "msks"):
        if not (tiles.is_dir() or Path(f"{tiles}.dvc").is_file() or tiles in outputs):
            raise UserError(
                f"{tiles}: no such folder, and neither {tiles}.dvc nor a stage of {TILE_STAGES} "
                f"makes it. Put one raster per tile there, then `dvc add {tiles}` (README, 'Your "
                "own tiles')."
            )


def stage_outputs(path: Path) -> set[Path]:
    """Paths of the outputs that the stages in the dvc.yaml ``path`` declare.

    Relative to the current folder, as ``path`` is. Stages made by ``foreach`` and ``matrix`` count;
    an output that is named by a variable from elsewhere (``vars``) is left out.
    """
    outputs = set()
    stages = parse_mapping(path.read_text(encoding="utf-8"), str(path)).get("stages") or {}
    for stage in stages.values():
        body = stage.get("do", stage)
        for values in _iterations(stage):
            folder = path.parent / _filled(body.get("wdir", "."), values)
            for out in body.get("outs") or ():
                name = out if isinstance(out, str) else next(iter(out))  # {name: options}
                outputs.add(Path(os.path.normpath(folder / _filled(name, values))))
    return {output for output in outputs if "${" not in str(output)}


def _iterations(stage: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The values of ``item`` and ``key`` for each stage that DVC makes of this one."""
    each = stage.get("foreach")
    if isinstance(each, Mapping):
        yield from ({"key": key, "item": item} for key, item in each.items())
    elif isinstance(each, list):
        yield from ({"item": item} for item in each)
    elif axes := stage.get("matrix"):
        for items in itertools.product(*axes.values()):
            yield {"item": dict(zip(axes, items, strict=True))}
    else:
        yield {}


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """``text`` with ``${key}``, ``${item}`` and ``${item.NAME}`` replaced by their values."""

    def value(variable: re.Match[str]) -> str:
        found: Any = values
        for name in variable[1].strip().split("."):
            if not (isinstance(found, Mapping) and name in found):
                return variable[0]
            found = found[name]
        return str(found)

    return re.sub(r"\$\{([^}]*)\}", value, text)


def check_models(params: Params) -> None:
    """Raise UserError unless every attempt's model can be built, which only building it shows.

    On the CPU: on torch's meta device some valid encoders (smp's mit_b0) cannot be built.
    """
    built = set()
    for name, recipe in params.recipes().items():
        if (model := (recipe.architecture, recipe.encoder)) in built:
            continue
        try:
            build_model(*model, dropout=recipe.dropout, patch_size=params.patch_size)
        except UserError as error:
            raise UserError(f"params.yaml: attempts.{name}.{error}") from None
        built.add(model)


if __name__ == "__main__":
    run(main)
