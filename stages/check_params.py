"""Check all of params.yaml and what it names, before anything depends on a part of it.

DVC reruns a stage when a key that it names changes, so nobody would look at a misspelt key. This
stage depends on the whole file; what it writes is always the same, so that nothing reruns after it.
"""

from __future__ import annotations

from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import write_json
from roofseg.models.roof_model import build_model
from roofseg.recipe.params import Params, read_params
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
    """Raise UserError unless data/NAME holds tables, terms, and tiles or where DVC gets them."""
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
    lines = TILE_STAGES.read_text().splitlines() if TILE_STAGES.is_file() else []
    made = {line.strip(" -:") for line in lines}  # among them the outputs, from the project's root
    for tiles in (folder / "imgs", folder / "msks"):
        if not (tiles.is_dir() or Path(f"{tiles}.dvc").is_file() or tiles.as_posix() in made):
            raise UserError(
                f"{tiles}: no such folder, and neither {tiles}.dvc nor a stage of {TILE_STAGES} "
                f"makes it. Put one raster per tile there, then `dvc add {tiles}` (README, 'Your "
                "own tiles')."
            )


def check_models(params: Params) -> None:
    """Raise UserError unless every attempt's model can be built; only building it shows that.

    On the CPU: on torch's meta device some encoders that are fine (smp's mit_b0) cannot be built.
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
