"""The report's section of pictures: a row per tile; image, truth and attempts as columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from roofseg.core.images import read_image
from roofseg.drawing import split_panel
from roofseg.metrics import SCORED_SPLITS
from roofseg.pages.page import Cell, Picture, PictureGrid, Section, data_uri, join_words
from roofseg.report.attempts import require
from roofseg.report.leaderboard import Leaderboard
from roofseg.results.tables import number

SIDE = 224  # side of a picture in pixels: the side of a sample patch; larger ones are shrunk
MAX_TILES = 12  # per split; more rows would not be read


def tile_by_tile(board: Leaderboard, predictions: Path) -> Section:
    """Show tiles with the predictions of every attempt, one grid for each split.

    Args:
        board: the leaderboard.
        predictions: the folder with NAME/SPLIT/panels/TILE.png (`roofseg.drawing.panel`).

    Raises:
        UserError: a panel is missing; the message names it and the command that makes it.
    """
    return Section("Tile by tile", [_grid(board, split, predictions) for split in board.splits])


def _grid(board: Leaderboard, split: str, predictions: Path) -> PictureGrid:
    shown = [attempt for attempt in board.ranked if attempt.opened(split)]
    ious = pd.DataFrame({attempt.name: attempt.of_split(split).iou for attempt in shown})
    chosen = shown_tiles(ious)
    rows: list[tuple[str, list[Picture]]] = []
    for tile in chosen:
        pictures: list[Picture] = []
        for attempt in shown:
            path = predictions / attempt.name / split / "panels" / f"{tile}.png"
            require(path, f"evaluate@{attempt.name}")
            image, truth, judged = split_panel(read_image(path))
            if not pictures:
                pictures = [
                    Picture(data_uri(image, SIDE), f"{tile}: the image"),
                    Picture(data_uri(truth, SIDE), f"{tile}: the image with its true footprints"),
                ]
            iou = number(float(ious.loc[tile, attempt.name]))
            pictures.append(
                Picture(data_uri(judged, SIDE), f"{tile}: {attempt.label}, IoU {iou}", iou)
            )
        rows.append((tile, pictures))
    choice = f"all {len(ious)} tiles"
    if len(chosen) < len(ious):
        choice = f"{len(chosen)} of {len(ious)} tiles, evenly spaced from worst to best mean IoU"
    sealed = [attempt.label for attempt in board.ranked if not attempt.opened(split)]
    return PictureGrid(
        f"{SCORED_SPLITS[split].capitalize()}: {choice}. Green pixels were found, blue pixels "
        "were missed, red pixels are false alarms; the number is the tile's IoU."
        + (" Hatched pixels are not labelled." if board.labelled(split).min() < 1 else "")
        + (f" Sealed, so not shown: {join_words(sealed)}." if sealed else ""),
        [
            Cell("image"),
            Cell("truth"),
            *(Cell(attempt.label, number(attempt.score(split, "iou").value)) for attempt in shown),
        ],
        rows,
    )


def shown_tiles(ious: pd.DataFrame) -> list[str]:
    """Choose the tiles to show: all, or `MAX_TILES` evenly spaced by their mean IoU.

    Args:
        ious: the IoU of each tile, a row per tile and a column per attempt.

    Returns:
        The names of the chosen tiles, in the order of ``ious``.
    """
    if len(ious) <= MAX_TILES:
        return list(ious.index)
    steps = np.linspace(0, len(ious) - 1, MAX_TILES).round().astype(int)
    chosen = ious.mean(axis=1).sort_values(kind="stable").index[steps]
    return list(ious.index[ious.index.isin(chosen)])
