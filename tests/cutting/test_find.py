from __future__ import annotations

from pathlib import Path

import pytest
from tiny_dataset import write_dataset

from roofseg.core.errors import UserError
from roofseg.cutting.find import find_tiles

SPLIT = {"b": "train", "a": "train", "c": "val", "d": "test"}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data" / "mine", SPLIT, size=32)


def test_order_and_paths(dataset: Path) -> None:
    tiles, _ = find_tiles(dataset)
    assert [(tile.name, tile.split) for tile in tiles] == [
        ("a", "train"),
        ("b", "train"),
        ("c", "val"),
        ("d", "test"),
    ]
    assert tiles[0].image == dataset / "imgs" / "a.tif"
    assert tiles[0].mask == dataset / "msks" / "a.tif"


def test_sidecars_hidden_files_and_folders_are_not_tiles(dataset: Path) -> None:
    for name in ("a.tif.aux.xml", "a.TFW", "a.tif.ovr", ".gitignore", ".DS_Store", "z.txt"):
        (dataset / "imgs" / name).touch()
    (dataset / "imgs" / "old").mkdir()
    tiles, unlisted = find_tiles(dataset)
    assert (len(tiles), unlisted) == (4, [])


def test_unlisted_tiles_are_named_and_left_out(dataset: Path) -> None:
    for name in ("imgs/z.tif", "msks/z.tif", "imgs/extra.v2.png", "msks/only_mask.png"):
        (dataset / name).touch()
    tiles, unlisted = find_tiles(dataset)
    assert (len(tiles), unlisted) == (4, ["extra.v2", "only_mask", "z"])


@pytest.mark.parametrize("kind", ["imgs", "msks"])
def test_a_tile_without_image_or_mask(dataset: Path, kind: str) -> None:
    (dataset / kind / "c.tif").unlink()
    with pytest.raises(UserError, match=rf"{kind}: no file for c, which .*split\.csv lists"):
        find_tiles(dataset)


@pytest.mark.parametrize("kind", ["imgs", "msks"])
def test_two_files_for_a_tile(dataset: Path, kind: str) -> None:
    (dataset / kind / "c.png").touch()
    with pytest.raises(UserError, match=rf"{kind}/c\.tif: c\.png in the same folder"):
        find_tiles(dataset)


def test_a_missing_folder(dataset: Path) -> None:
    (dataset / "msks").rename(dataset / "labels")
    with pytest.raises(UserError, match="msks: no such folder"):
        find_tiles(dataset)
