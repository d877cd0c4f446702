"""Divide the tiles of train and val into folds for cross-validation.

DVC runs ``python -m stages.divide_folds folds --folds K --seed S`` as the stage divide@folds, which
writes studies/folds.csv. Test has no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.terminal import ArgumentParser, warn
from roofseg.cutting.leakage import Fingerprint, near_duplicates, overlaps
from roofseg.intake.folds import divide_into_folds, grids_of, group_tiles, touching_others
from roofseg.patches import Patch, read_crops, read_patches
from roofseg.studies.folds import FoldTable, remarks, write_folds
from roofseg.tiles.grid import Grid
from roofseg.tiles.manifest import read_manifest
from stages import run

PATCHES = Path("patches")
NAMED = 20  # the most overlapping pairs that an error lists


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.divide_folds", description=__doc__)
    parser.add_argument("study", help="the study of studies.yaml that has folds")
    parser.add_argument("--folds", type=int, required=True, help="number of folds")
    parser.add_argument("--seed", type=int, required=True, help="decides the division")
    args = parser.parse_args()
    patches: list[Patch] = []
    tiles: dict[str, Grid] = {}
    places: dict[str, Grid] = {}  # of patches
    fractions: dict[str, float] = {}
    listed = read_manifest(PATCHES / "tiles.csv")
    for split in ("train", "val"):
        patches += read_patches(PATCHES / split)
        for crop in read_crops(PATCHES / split).itertuples():
            size = patches[-1].mask.shape[0]
            tiles[crop.tile], places[crop.tile] = grids_of(
                listed[crop.tile], row=crop.row, col=crop.col, patch_size=size
            )
            fractions[crop.tile] = crop.building_fraction
    groups, side = group_tiles(tiles, args.folds)
    try:
        folds = divide_into_folds(groups, fractions, folds=args.folds, seed=args.seed)
    except UserError as error:
        raise UserError(f"studies/studies.yaml: studies.{args.study}.{error}") from None
    check_leakage(patches, places, folds)
    out = Path("studies") / f"{args.study}.csv"
    of_tile = {tile: fold + 1 for tile, fold in folds.items()}
    division = FoldTable(of_tile, touching_others(tiles, of_tile), side, args.seed)
    write_folds(out, division, groups)
    for remark in remarks(division):
        warn(remark)
    counts = [list(folds.values()).count(fold) for fold in range(args.folds)]
    kind = f"squares of {side:g} m" if side else "groups"
    kind += "" if side or None in division.touches.values() else " of neighbours"
    print(
        f"{out}: {len(folds)} tiles in {len(groups)} {kind}, in {args.folds} folds "
        f"of {' + '.join(map(str, counts))}"
    )


def check_leakage(
    patches: Sequence[Patch], places: Mapping[str, Grid], folds: Mapping[str, int]
) -> None:
    """Raise UserError if patches of two folds overlap or are the same; warn if they look alike."""
    prints = [
        Fingerprint.of(p.tile, f"fold {folds[p.tile] + 1}", p.image, places[p.tile], p.mask)
        for p in patches
    ]
    if shared := overlaps(prints):
        more = f"; and {len(shared) - NAMED} more" if len(shared) > NAMED else ""
        raise UserError(
            f"patches: patches of two folds overlap, so scores would be too high: "
            f"{'; '.join(shared[:NAMED])}{more}. Remove one tile of each pair from split.csv."
        )
    for pair in near_duplicates(prints):
        warn(f"{pair}: the same place in two folds? Look at {PATCHES / 'overview.png'}")


if __name__ == "__main__":
    run(main)
