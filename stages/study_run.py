"""One run of a study: train a recipe, on a subset of the training tiles, and score it on val.

The recipe comes from the file that the stage recipe@ATTEMPT wrote; nothing else in params.yaml or
studies.yaml decides the result. The run saves its state after every epoch. Its model is not kept.
"""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import get_args

from roofseg.core.errors import UserError
from roofseg.core.files import flush, read_json, remove_scratch, sha256_file, write_json
from roofseg.core.run_states import mark_finished
from roofseg.core.terminal import ArgumentParser, warn
from roofseg.metrics import COUNTS
from roofseg.patches import read_patches
from roofseg.recipe.digest import inputs_hash
from roofseg.recipe.params import Augmentation, Recipe
from roofseg.recipe.parsing import read_params
from stages import run, state_root


def main() -> None:
    args = parse_arguments()
    out = Path("metrics/studies/runs", args.study, f"{args.run}.json")
    source = Path("studies/recipes", args.attempt, f"{args.study}.json")
    declared = read_json(source)
    changes = {"augmentation": args.augmentation} if args.augmentation else {}
    declared["recipe"] |= {"seed": args.seed, **changes}
    recipe = Recipe.model_validate(declared["recipe"])
    machine = read_params(Path("params.yaml")).machine().model_copy(update={"overlay_every": 0})
    from roofseg.studies.runs import subset, tile_scores  # torch: see `stages.run`
    from roofseg.training.resume import locked_state, state_name
    from stages._training import check_parent, code_files, fit, prior_file

    prior = prior_file(recipe)
    if not prior.is_file() or sha256_file(prior) != declared["prior_sha256"]:
        raise UserError(
            f"{prior}: missing, or not the prior that {source} was made with. Run "
            f"`dvc repro studies/dvc.yaml:recipe@{args.attempt}`."
        )
    folders = [Path("patches") / split for split in ("train", "val")]
    train_patches, val_patches = map(read_patches, folders)
    tiles = subset([patch.tile for patch in train_patches], args.tiles, recipe.seed)
    key = json.dumps([declared["recipe"], tiles], sort_keys=True)
    inputs = inputs_hash(key, [*code_files(__file__), prior, *folders])
    name = state_name(f"{args.study}-{args.attempt}", inputs, recipe, machine)
    train_patches = [patch for patch in train_patches if patch.tile in tiles]
    with (
        locked_state(state_root() / name) as state,
        tempfile.TemporaryDirectory() as scratch,  # for curves and overlays, which are not kept
    ):
        trained = fit(
            recipe,
            args.attempt,
            train_patches,
            val_patches,
            machine=machine,
            state=state,
            out=Path(scratch),
        )
        if trained is None:  # not the first process of a run on several devices
            return
        check_parent()
        scores = tile_scores(trained.model, val_patches, machine.device)
        record = {
            **declared,
            "train_tiles": tiles,
            "inputs": inputs,
            "result": trained.record(),
            "val": scores[["tile", *COUNTS]].to_dict("records"),
            "val_iou": float(scores.iou.mean()),
        }
        remove_scratch(out)
        write_json(out, record)
        flush(out)
        mark_finished(state, sha256_file(out))
        check_parent()
    if trained.failure:
        warn(f"{out}: training ended early: {trained.failure}")
    print(f"{args.study}: {args.run}: val IoU {record['val_iou']:.4f}")


def parse_arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m stages.study_run", description=__doc__)
    parser.add_argument("study", help="budget, seeds or augmentation")
    parser.add_argument("run", help="the run's name, ATTEMPT-...-SEED, and that of its record")
    parser.add_argument("--attempt", required=True, help="a name in params.yaml or studies.yaml")
    parser.add_argument("--seed", required=True, type=int, help="seed of the run and its tiles")
    parser.add_argument("--tiles", type=int, help="number of training tiles (default: all)")
    parser.add_argument("--augmentation", choices=get_args(Augmentation), help="a preset")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
