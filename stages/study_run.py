"""One run of a study: train a recipe, on a subset of the training tiles, and score it on val.

The recipe comes from the file that the stage recipe@ATTEMPT wrote; nothing else in params.yaml or
studies.yaml decides the result. The run saves its state after every epoch. Its model is not kept.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from roofseg.core.terminal import ArgumentParser
from roofseg.metrics import COUNTS
from roofseg.patches import read_patches
from roofseg.recipe.digest import inputs_hash
from roofseg.recipe.params import Augmentation
from stages import run
from stages._study_runs import Record, declared_run, train_run

if TYPE_CHECKING:
    from roofseg.training.engine import Trained

PATCHES = Path("patches")


def main() -> None:
    args = parse_arguments()
    changes = {"augmentation": args.augmentation} if args.augmentation else {}
    changes |= {"seed": args.seed}
    declared, recipe, machine = declared_run(args.study, args.attempt, changes)
    del declared["prior"]
    from roofseg.studies.runs import probabilities, subset, tile_scores  # torch: see `stages.run`
    from stages._training import code_files, prior_file

    train_patches, val_patches = (read_patches(PATCHES / split) for split in ("train", "val"))
    tiles = subset([patch.tile for patch in train_patches], args.tiles, recipe.seed)
    files = [*code_files(__file__), prior_file(recipe), PATCHES / "train", PATCHES / "val"]
    inputs = inputs_hash(json.dumps([declared["recipe"], tiles], sort_keys=True), files)
    train_patches = [patch for patch in train_patches if patch.tile in tiles]

    def finish(trained: Trained) -> Record:
        predicted = probabilities(trained.model, val_patches, machine.device)
        scores = tile_scores(val_patches, predicted)
        iou = float(scores.iou.mean())
        print(f"{args.study}: {args.run}: val IoU {iou:.4f}")
        scored = scores[["tile", *COUNTS]].to_dict("records")
        return {**declared, "train_tiles": tiles, "scored": scored, "iou": iou}

    names = (args.study, args.run, args.attempt)
    train_run(*names, recipe, machine, inputs, train_patches, val_patches, finish)


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
