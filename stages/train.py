"""Train one attempt from its prior, and write its best model and its curves.

DVC runs ``python -m stages.train --attempt NAME`` as the stage train@NAME. With ``--smoke`` the
stage trains two epochs on a few draws and writes nothing into the project.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from roofseg.core.files import atomic_write, flush, remove_scratch, sha256_file, write_json
from roofseg.core.run_states import mark_finished
from roofseg.core.terminal import ArgumentParser
from roofseg.patches import read_crops, read_patches, write_seen_tiles
from roofseg.recipe.digest import attempt_digest, inputs_hash
from roofseg.recipe.params import Params, Recipe
from roofseg.recipe.parsing import read_params
from stages import run, state_root

if TYPE_CHECKING:
    from roofseg.training.engine import Trained

PATCHES = Path("patches")
Record = dict[str, object]


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.train", description=__doc__)
    parser.add_argument("--attempt", required=True, help="an attempt in params.yaml")
    parser.add_argument("--smoke", action="store_true", help="two short epochs, write nothing")
    args = parser.parse_args()
    params = read_params(Path("params.yaml"))
    recipe, machine = params.recipe(args.attempt), params.machine()
    from roofseg.training.resume import locked_state, state_name  # torch: see `stages.run`
    from stages._training import check_parent, code_files, fit, prior_file, provenance

    patches = [read_patches(PATCHES / split) for split in ("train", "val")]
    if args.smoke:
        with tempfile.TemporaryDirectory() as scratch:
            folder, recipe = Path(scratch), recipe.shortened()
            trained = fit(recipe, args.attempt, *patches, machine=machine, state=folder, out=folder)
    else:
        # Read the inputs before training, so that later edits are not recorded as inputs.
        record = inputs(params, args.attempt, recipe, [*code_files(__file__), prior_file(recipe)])
        record["prior"], seen = provenance(params, recipe)
        name = state_name(args.attempt, str(record["training_inputs"]), recipe, machine)
        with locked_state(state_root() / name) as state:
            trained = fit(recipe, args.attempt, *patches, machine=machine, state=state, out=Path())
            if trained:
                check_parent()
                model = write(args.attempt, trained, {**record, "result": trained.record()}, seen)
                mark_finished(state, sha256_file(model))
                check_parent()
    if trained and trained.failure:
        raise trained.failure
    if args.smoke:
        print("Smoke run finished: two epochs, nothing written.")


def inputs(params: Params, attempt: str, recipe: Recipe, files: Iterable[Path]) -> Record:
    """The part of recipe.json that describes the run's inputs: recipe, patches and ``files``."""
    digest = attempt_digest(params, attempt, dataset=Path("data") / params.dataset)
    return {
        "attempt": attempt,
        "digest": digest,
        "training_inputs": inputs_hash(digest, [*files, PATCHES / "train", PATCHES / "val"]),
        "dataset": params.dataset,
        "patch_size": params.patch_size,
        "gsd": sorted(read_crops(PATCHES / "train").gsd.dropna().unique().tolist()),
        "recipe": recipe.model_dump(mode="json"),
    }


def write(attempt: str, trained: Trained, record: Record, seen: list[dict[str, str]]) -> Path:
    """Write models/ATTEMPT (weights, record, seen tiles), and the record and times below metrics/.

    Returns the weights file. All outputs are flushed to the disk, so the state may be removed.
    """
    from roofseg.models.roof_model import save_model

    model, metrics = Path("models") / attempt, Path("metrics") / "attempts" / attempt
    files = {metrics / "training.json": record, metrics / "times.json": trained.times()}
    for path in (model, *files):
        remove_scratch(path)
    with atomic_write(model) as folder:
        save_model(folder / "model.safetensors", trained.model)
        write_json(folder / "recipe.json", record)
        write_seen_tiles(folder / "tiles.csv", seen)
    for path, value in files.items():
        write_json(path, value)
    for output in (model, metrics, Path("plots") / "training" / attempt):
        flush(output)
    return model / "model.safetensors"


if __name__ == "__main__":
    run(main)
