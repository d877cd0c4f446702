"""Check all of params.yaml, the dataset and the models that it names, before any other stage.

DVC reruns a stage when a key changes that the stage declares, so no stage would notice a misspelt
key. This stage depends on the whole file. Its output is always the same, so that DVC reruns no
other stage because of it.
"""

from __future__ import annotations

from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import write_json
from roofseg.recipe.architectures import ARCHITECTURES
from roofseg.recipe.params import Params
from roofseg.recipe.parsing import read_params
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
    """Raise UserError unless data/NAME holds its tables, its licence, and its tiles.

    Tiles that are not here yet must come from a .dvc file beside their folder, or from a stage of
    data/dvc.yaml.
    """
    folder = Path("data") / name
    if not folder.is_dir():
        datasets = sorted(path.name for path in Path("data").glob("*/"))
        raise UserError(
            f"params.yaml: dataset: found {name!r}, but there is no folder {folder}; data/ has: "
            f"{', '.join(datasets) or 'none'}"
        )
    read_split(folder)
    read_nudges(folder)
    read_licence(folder)
    for tiles in (folder / "imgs", folder / "msks"):
        if tiles.is_dir() or Path(f"{tiles}.dvc").is_file():
            continue
        if not TILE_STAGES.is_file() or tiles.absolute() not in stage_outputs(TILE_STAGES):
            raise UserError(
                f"{tiles}: no such folder, and neither {tiles}.dvc nor a stage of {TILE_STAGES} "
                "makes it. Tiles that the project can bring (sample, inria) must be listed under "
                "`sources` in params.yaml, as in their profiles. For others, put one raster per "
                f"tile there, then `dvc add {tiles}` (docs/own-tiles.md)."
            )


def stage_outputs(path: Path) -> set[Path]:
    """Absolute paths of the outputs that the stages of the dvc.yaml ``path`` declare.

    Raises UserError if DVC cannot read the file.
    """
    # Imported here, since it takes a second and is needed only if there are no tiles yet.
    from dvc.dvcfile import load_file
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with Repo(uninitialized=True) as repo:  # works without .dvc, too
        try:
            stages = load_file(repo, str(path)).stages.values()
            return {Path(out.fs_path) for stage in stages for out in stage.outs}
        except DvcException as error:
            raise UserError(
                f"{path}: DVC cannot read it ({' '.join(str(error).split())}). Correct it, or "
                "restore it from git."
            ) from None


def check_models(params: Params) -> None:
    """Build the model of every attempt; UserError if one cannot be built."""
    import torch  # see `stages.run`

    from roofseg.models.roof_model import build_model

    built, size = set(), params.patch_size
    for name, recipe in params.recipes().items():
        if (model := (recipe.architecture, recipe.encoder, recipe.lora)) in built:
            continue
        try:
            # The meta device stores no weights. Some encoders of smp (mit_b0) fail on it.
            with torch.device("cpu" if ARCHITECTURES[recipe.architecture] == "smp" else "meta"):
                build_model(*model[:2], dropout=recipe.dropout, patch_size=size).adapt(recipe.lora)
        except UserError as error:
            raise UserError(f"params.yaml: attempts.{name}.{error}") from None
        built.add(model)


if __name__ == "__main__":
    run(main)
