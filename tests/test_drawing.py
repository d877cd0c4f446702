from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph import ROOT

from roofseg import drawing
from roofseg.core.images import UNKNOWN

TEMPLATES = ROOT / ".dvc/plots"

SIDE = 64
RED = (200, 10, 10)


def square(top: int, left: int, side: int, size: int = SIDE) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def grey(size: int = SIDE) -> np.ndarray:
    return np.full((size, size, 3), 100, np.uint8)


def painted(picture: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(rgb, np.uint8)).all(axis=-1)


def test_overlay_draws_truth_outside_and_prediction_inside_of_the_same_edge() -> None:
    mask = square(20, 20, 20)
    before = grey()
    drawn = drawing.overlay(before, mask, mask)
    assert drawn.shape == (SIDE, SIDE, 3)
    assert drawn.dtype == np.uint8
    green, red = painted(drawn, drawing.TRUTH), painted(drawn, drawing.PREDICTION)
    assert green.any()
    assert not (green & (mask > 0)).any()
    assert red.sum() == 20 * 4 - 4
    assert not (red & (mask == 0)).any()
    assert not painted(drawn, drawing.BOTH).any()
    assert (drawn[30, 30] == 100).all(), "the roof itself stays visible"
    assert (before == 100).all(), "the caller's image is not drawn on"


def test_overlay_of_crossing_outlines_and_of_nothing() -> None:
    drawn = drawing.overlay(grey(), square(20, 20, 20), square(10, 10, 20))
    assert painted(drawn, drawing.BOTH).any()
    empty = np.zeros((SIDE, SIDE), np.uint8)
    np.testing.assert_array_equal(drawing.overlay(grey(), empty, empty), grey())


def test_a_footprint_cut_by_the_border_has_no_line_there() -> None:
    everything = np.ones((SIDE, SIDE), np.uint8)
    np.testing.assert_array_equal(drawing.overlay(grey(), everything, everything), grey())


@pytest.mark.parametrize(("size", "width"), [(224, 1), (512, 2), (1024, 4)])
def test_lines_grow_with_the_picture(size: int, width: int) -> None:
    quarter = size // 4
    mask = square(quarter, quarter, quarter, size)
    drawn = drawing.overlay(grey(size), np.zeros_like(mask), mask)
    column = painted(drawn, drawing.PREDICTION)[:, quarter + quarter // 2]
    assert column.sum() == 2 * width, "an upper and a lower edge"


def test_panel_shows_image_truth_and_the_three_kinds_of_outcome() -> None:
    truth, prediction = square(20, 20, 20), square(30, 20, 20)
    image, footprints, judged = drawing.split_panel(drawing.panel(grey(), truth, prediction))
    np.testing.assert_array_equal(image, grey())
    np.testing.assert_array_equal(
        (footprints != 100).any(axis=-1) & (truth > 0), truth > 0, "the whole roof is tinted"
    )
    for pixel, strongest in {(25, 30): 2, (35, 30): 1, (45, 30): 0}.items():
        others = np.delete(judged[pixel], strongest)
        assert (judged[pixel][strongest] > others).all(), "missed blue, found green, false red"
    assert (judged[5, 5] == 100).all()


def test_a_strip_that_is_not_a_panel_is_an_error() -> None:
    with pytest.raises(ValueError, match="64 x 64"):
        drawing.split_panel(grey())


@pytest.mark.parametrize(("counts", "columns"), [((1,), 1), ((2,), 2), ((4, 0, 2), 3)])
def test_contact_sheet_shows_every_picture(counts: tuple[int, ...], columns: int) -> None:
    groups = [
        drawing.SheetGroup([(grey(), f"tile {k}\nIoU 0.5")] * count, f"group {k}", RED)
        for k, count in enumerate(counts)
    ]
    sheet = drawing.contact_sheet("epoch 5", groups)
    assert sheet.shape[1] == drawing.GAP + columns * (drawing.CELL + drawing.GAP)
    assert sum(counts) * drawing.CELL**2 <= painted(sheet, (100, 100, 100)).sum()
    assert painted(sheet, RED).sum() > sum(counts) * 4 * drawing.CELL, "frames"
    np.testing.assert_array_equal(sheet, drawing.contact_sheet("epoch 5", groups))


def test_contact_sheet_fits_long_names_and_titles_into_its_width() -> None:
    long = "a_long_name_of_a_tile_" * 20
    sheet = drawing.contact_sheet(long, [drawing.SheetGroup([(grey(), long)])])
    margin = sheet[:, -drawing.GAP + 3 :]
    assert (margin == drawing.PAPER).all()


def test_contact_sheet_has_as_many_columns_as_asked() -> None:
    sheet = drawing.contact_sheet("", [drawing.SheetGroup([(grey(), "tile")])], min_columns=6)
    assert sheet.shape[1] == drawing.GAP + 6 * (drawing.CELL + drawing.GAP)


def test_colours_differ_between_attempts_and_repeat_only_after_all_were_used() -> None:
    used = [drawing.colour(index) for index in range(len(drawing.COLOURS))]
    assert len(set(used)) == len(used) >= 5
    assert drawing.colour(len(used)) == used[0]


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.json")), ids=lambda path: path.stem)
def test_plots_of_dvc_give_the_attempts_the_same_colours(template: Path) -> None:
    found = list(colour_encodings(json.loads(template.read_text())))
    assert found
    for encoding in found:
        assert encoding["field"] == "attempt"
        assert encoding["scale"]["range"] == drawing.COLOURS
        # null keeps the order of the data, which is the order of params.yaml.
        assert encoding["sort"] is None


def colour_encodings(part: Any) -> Iterator[dict[str, Any]]:
    """Every encoding of a colour in a template, at any depth."""
    if isinstance(part, dict):
        if "color" in part.get("encoding", {}):
            yield part["encoding"]["color"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from colour_encodings(item)


class TestUnknown:
    """Truths some of whose pixels nobody has labelled."""

    @pytest.mark.parametrize("draw", [drawing.overlay, drawing.panel])
    def test_they_are_hatched_and_nothing_else_is(self, draw: Any) -> None:
        truth, prediction = square(10, 10, 20), square(12, 12, 20)
        plain = draw(grey(), truth, prediction)
        truth[:, 40:] = UNKNOWN
        found = draw(grey(), truth, prediction)
        for start in range(0, found.shape[1], SIDE):  # the pictures of a panel
            part, before = (each[:, start : start + SIDE] for each in (found, plain))
            np.testing.assert_array_equal(part[:, :40], before[:, :40])
            hatched = part[:, 40:]
            if draw is drawing.panel and start == 0:
                assert (hatched == 100).all()  # the image itself
            else:
                assert len(np.unique(hatched.reshape(-1, 3), axis=0)) == 2  # stripes and between

    def test_a_building_has_no_edge_there(self) -> None:
        truth = square(10, 30, 20)
        truth[:, 40:] = UNKNOWN
        found = drawing.overlay(grey(), truth, np.zeros_like(truth))
        assert painted(found, drawing.TRUTH)[:, :40].any()
        assert not painted(found, drawing.TRUTH)[:, 40:].any()

    def test_predictions_there_are_not_judged(self) -> None:
        truth, prediction = np.full((SIDE, SIDE), UNKNOWN, np.uint8), square(10, 10, 20)
        without = drawing.panel(grey(), truth, np.zeros_like(truth))
        np.testing.assert_array_equal(drawing.panel(grey(), truth, prediction), without)
