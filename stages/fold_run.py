"""One run of cross-validation: train on all folds but two, and score one of these two.

DVC runs ``python -m stages.fold_run folds ATTEMPT-FOLD --attempt ATTEMPT --fold N``. The other fold
chooses the best epoch. The model is kept, with the probabilities of the tiles that it is scored on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from roofseg.core.files import atomic_write, flush, remove_scratch, write_json
from roofseg.core.terminal import ArgumentParser
from roofseg.cutting.seen import PlacedTile, check_seen, grid_of
from roofseg.metrics import COUNTS
from roofseg.patches import read_patches, seen_tiles, write_seen_tiles
from roofseg.recipe.digest import digest, inputs_hash
from roofseg.recipe.parsing import read_params
from roofseg.recipe.split import read_nudges
from roofseg.studies.folds import TEST, TRAIN, VAL, fold_split, read_folds
from roofseg.tiles.manifest import read_manifest
from stages import run
from stages._study_runs import Record, declared_run, train_run

if TYPE_CHECKING:
    from roofseg.training.engine import Trained

PATCHES = Path("patches")


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.fold_run", description=__doc__)
    parser.add_argument("study", help="the study of studies.yaml that has folds")
    parser.add_argument("run", help="ATTEMPT-FOLD, the name of its record and model")
    parser.add_argument("--attempt", required=True, help="a name in params.yaml or studies.yaml")
    parser.add_argument("--fold", required=True, type=int, help="the fold to score, from 1")
    args = parser.parse_args()
    declared, recipe, machine = declared_run(args.study, args.attempt, {})
    params, prior = read_params(Path("params.yaml")), declared.pop("prior")
    own = seen_tiles(PATCHES, dataset=params.dataset, patch_size=params.patch_size)
    split_of = {row["tile"]: row["split"] for row in own}  # in split.csv
    division = read_folds(Path("studies") / f"{args.study}.csv", split_of)
    split, seen = fold_split(division.of_tile, args.fold), prior.pop("tiles", [])
    check_prior(seen, split, params.patch_size, f"fold {args.fold}: the prior {recipe.prior}")
    seen += [row | {"split": split[row["tile"]]} for row in own if split[row["tile"]] != TEST]
    from roofseg.models.roof_model import save_model  # torch: see `stages.run`
    from roofseg.studies.runs import probabilities, save_probabilities, tile_scores
    from stages._training import code_files, prior_file

    folders = [PATCHES / name for name in ("train", "val")]
    patches = {patch.tile: patch for path in folders for patch in read_patches(path)}
    train, chosen_by, scored = (
        [patches[tile] for tile in sorted(split) if split[tile] == part]
        for part in (TRAIN, VAL, TEST)
    )
    gsd = sorted({patch.gsd for patch in train if patch.gsd == patch.gsd})  # no NaN
    identity = digest(recipe, params, split, read_nudges(Path("data") / params.dataset))
    inputs = inputs_hash(identity, [*code_files(__file__), prior_file(recipe), *folders])
    model = Path("studies", args.study, args.run)

    def finish(trained: Trained) -> Record:
        predicted = probabilities(trained.model, scored, machine.device)
        scores = tile_scores(scored, predicted)
        iou = float(scores.iou.mean())
        print(f"{args.study}: {args.run}: IoU {iou:.4f} on the tiles of fold {args.fold}")
        remove_scratch(model)
        with atomic_write(model) as folder:
            save_model(folder / "model.safetensors", trained.model)
            record = {
                **{"attempt": args.attempt, "fold": args.fold, "digest": identity},
                **{"training_inputs": inputs, "dataset": params.dataset},
                **{"patch_size": params.patch_size, "gsd": gsd},
                **{"recipe": declared["recipe"], "prior": prior, "result": trained.record()},
            }
            write_json(folder / "recipe.json", record)
            write_seen_tiles(folder / "tiles.csv", seen)
            save_probabilities(folder / "out_of_fold", scored, predicted)
        flush(model)
        tiles = {"train_tiles": [p.tile for p in train], "val_tiles": [p.tile for p in chosen_by]}
        rows = scores[["tile", *COUNTS]].assign(split=scores.tile.map(split_of)).to_dict("records")
        declared.update(fold=args.fold, division=division.record())
        return {**declared, **tiles, "scored": rows, "iou": iou}

    train_run(args.study, args.run, args.attempt, recipe, machine, inputs, train, chosen_by, finish)


def check_prior(
    seen: Sequence[Mapping[str, str]], split: Mapping[str, str], patch_size: int, subject: str
) -> None:
    """Raise UserError if the prior has seen tiles that choose the epoch or are scored."""
    here = [
        PlacedTile(name, split.get(name, tile.split), tile.image_sha256, grid_of(tile, patch_size))
        for name, tile in read_manifest(PATCHES / "tiles.csv").items()
    ]
    check_seen(seen, here, subject, "Start from another prior.")


if __name__ == "__main__":
    run(main)
