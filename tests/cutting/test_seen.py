"""Which tiles a model must not have seen."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from seen_rows import row, tile

from roofseg.core.errors import UserError
from roofseg.cutting.seen import PlacedTile, check_seen, grid_of
from roofseg.tiles.manifest import TileRecord


def check(seen: list[dict[str, str]], here: list[TileRecord]) -> None:
    tiles = [PlacedTile(t.tile, t.split, t.image_sha256, grid_of(t, 64)) for t in here]
    check_seen(seen, tiles, "the model", "Put these tiles into train.")


@pytest.mark.parametrize(
    ("there", "here", "leaks"),
    [
        ("train", "train", False),
        ("train", "val", True),
        ("train", "test", True),
        ("val", "train", False),
        ("val", "val", False),  # val chooses, there and here
        ("val", "test", True),
    ],
)
@pytest.mark.parametrize("place", [None, 621000.0])
def test_what_the_model_learnt_from_must_not_be_tested(
    there: str, here: str, leaks: bool, place: float | None
) -> None:
    """By the same bytes where nothing is georeferenced, and by ground where the bytes differ."""
    seen = [row("a", there, "1", place), row("b", there, "2", 1.0)]
    tiles = [tile("x", here, "1" if place is None else "3", place), tile("y", here, "4", 5e5)]
    if not leaks:
        check(seen, tiles)
        return
    why = "are the same image" if place is None else "share 64 x 64 px of ground"
    message = rf"the model has seen .*: a \({there} of city\) and x \({here} here\) {why}\. Put"
    with pytest.raises(UserError, match=message):
        check(seen, tiles)


@pytest.mark.parametrize(("metres", "leaks"), [(0.0, True), (19.0, True), (19.2, False)])
def test_tiles_side_by_side_share_no_ground(metres: float, leaks: bool) -> None:
    seen, here = [row("a", "train", "1", 621000.0)], [tile("x", "val", "2", 621000.0 + metres)]
    with pytest.raises(UserError) if leaks else nullcontext():
        check(seen, here)


def test_many_overlaps_are_cut_short() -> None:
    seen = [row(f"s{n}", "train", f"{n}") for n in range(8)]
    here = [tile(f"t{n}", "test", f"{n}") for n in range(8)]
    with pytest.raises(UserError, match=r"; and 3 more\. Put these tiles into train"):
        check(seen, here)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("split", "test"),
        ("split", "junk"),
        ("patch_size", "x"),
        ("patch_size", "0"),
        ("crs", "EPSG:99999999"),
        ("transform", "0.3 0.0 621000.0"),
        ("transform", "0.3 0.0 nan 0.0 -0.3 0.0"),
        ("transform", "a b c d e f"),
    ],
)
def test_a_damaged_table_of_tiles_is_one_clear_error(column: str, value: str) -> None:
    seen = [row("a", "train", "1", 621000.0) | {column: value}]
    with pytest.raises(UserError, match=rf"^the model has .* damaged: tile a has .*{value}.*again"):
        check(seen, [tile("x", "train", "2", 621000.0)])


def test_an_image_that_the_dataset_holds_twice_leaks_by_either() -> None:
    for splits in (("test", "train"), ("train", "test")):
        here = [tile(f"x{split}", split, "1") for split in splits]
        with pytest.raises(UserError, match=r"xtest \(test here\) are the same image"):
            check([row("a", "train", "1")], here)
