"""Divide the tiles of a new dataset into train, val and test: at random, or by the user's file."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.messages import shortened
from roofseg.intake.inspect import TileReport
from roofseg.intake.pairing import tile_name
from roofseg.intake.spatial_split import divide, find_blocks, fitting_side
from roofseg.recipe.split import SPLITS, read_split

# Tiles that all touch are divided into at least so many squares: two each for val and test.
SQUARES = 12


@dataclass(frozen=True)
class Division:
    """How to divide tiles into train, val and test.

    Attributes:
        seed: seed of the random division.
        val, test: shares of the tiles; train gets the rest.
        side: divide the ground into squares of this side in metres; the tiles of a square stay
            together. None: tiles that touch stay together, unless that gives fewer than three
            blocks; then the ground is divided into squares too.
        file: a split.csv to use instead; its tiles are the user's file names without suffix.
    """

    seed: int = 42
    val: float = 1 / 6
    test: float = 1 / 6
    side: float | None = None
    file: Path | None = None


def divide_tiles(
    reports: Sequence[TileReport], division: Division
) -> tuple[dict[str, str], float | None]:
    """The split of each tile, and the side of the squares that stay together, if any."""
    grids = {report.name: report.grid for report in reports if report.grid}
    side = division.side
    blocks = find_blocks(grids, side)
    if len(blocks) < len(SPLITS) <= len(grids):
        fitting = fitting_side(grids, SQUARES)
        if side is None:
            side, blocks = fitting, find_blocks(grids, fitting)
        elif len(find_blocks(grids, fitting)) >= len(SPLITS):
            raise UserError(
                f"--block: squares of {side:g} m divide the {len(grids)} tiles into {len(blocks)} "
                f"{'block' if len(blocks) == 1 else 'blocks'}; expected at least 3, one each for "
                f"train, val and test. Use --block {fitting:g}."
            )
    fractions = {report.name: report.building or 0.0 for report in reports}
    split = divide(blocks, fractions, seed=division.seed, val=division.val, test=division.test)
    return split, side


def given_split(
    reports: Sequence[TileReport],
    folder: Path,
    file: Path,
    origins: dict[Path, str],
    left_out: Collection[str] = (),
) -> dict[str, str]:
    """The split of each tile from the user's ``file``, which may list tiles that were left out.

    Raises UserError if the file is not valid, lists other tiles too, or leaves a split empty.
    """
    copy = folder / "split.csv"
    origins[copy] = str(file)
    shutil.copyfile(file, copy)
    given = read_split(folder)
    listed: dict[str, str] = {}
    for name in given:
        if (other := listed.setdefault(tile_name(name), name)) != name:
            raise UserError(
                f"{file}: lists {other} and {name}, which become the same tile. Remove "
                "one of the lines."
            )
    brought = {report.name for report in reports}
    if unknown := sorted(listed[tile] for tile in listed.keys() - brought - set(left_out)):
        raise UserError(
            f"{file}: lists {shortened(unknown)}, but there is no such image. Expected "
            "file names of images, without suffix."
        )
    split = {tile: given[name] for tile, name in listed.items() if tile in brought}
    if empty := [name for name in SPLITS if name not in split.values()]:
        raise UserError(
            f"{file}: no tile of {' and '.join(empty)} is left, since those that have no labelled "
            "pixel were left out; each split needs at least one. Move tiles from another split."
        )
    return split
