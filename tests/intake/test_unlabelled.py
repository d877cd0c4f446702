"""Pixels of new tiles that nobody has labelled: without data, outside areas, or by their mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from brought import taken
from intake_files import NAMES, SIZE, place_of, write_footprints, write_pairs
from rasterio.transform import Affine
from tiers import cases
from tiny_dataset import CRS, TRANSFORM, make, tile_pixels, write_raster

from roofseg.core.errors import UserError
from roofseg.intake.division import Division
from roofseg.intake.inspect import inspect_dataset, table
from roofseg.patches import read_patches
from roofseg.recipe.split import read_split
from roofseg.tiles.rasters import open_raster


def values(path: Path) -> np.ndarray:
    with open_raster(path) as source:
        return source.read(1)


def mask_of(name: str) -> np.ndarray:
    """The mask of a tile of `write_pairs`, 0/255."""
    return tile_pixels(NAMES.index(name), SIZE)[1] * np.uint8(255)


def write_areas(path: Path, *names: str, part: float = 1.0, crs: str = "EPSG:3857") -> Path:
    """The left ``part`` of each named tile as a polygon, in another CRS than the tiles."""
    boxes = []
    for name in names:
        place = place_of(NAMES.index(name))
        boxes.append(shapely.box(*(place @ (-9, SIZE + 9)), *(place @ (part * SIZE, -9))))
    geopandas.GeoDataFrame(geometry=boxes, crs=CRS).to_crs(crs).to_file(path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "oslo"


@pytest.mark.parametrize("kind", cases(["nodata", "alpha", "NaN"], {"alpha", "NaN"}))
@pytest.mark.parametrize("footprints", cases([False, True], {True}))
def test_pixels_without_data(tmp_path: Path, out: Path, kind: str, footprints: bool) -> None:
    def holed(image: np.ndarray) -> np.ndarray:
        blank = np.zeros(image.shape[:2], bool)
        blank[:20, :30] = True
        if kind == "alpha":
            return np.dstack([image, np.where(blank, 0, 255).astype(np.uint8)])
        if kind == "NaN":
            return np.where(blank[..., None], np.float32("nan"), image.astype(np.float32))
        return np.where(blank[..., None], 0, image).astype(np.uint8)

    profile = {"nodata": {"nodata": 0}, "alpha": {"alpha": "YES", "photometric": "RGB"}, "NaN": {}}
    images, masks = write_pairs(tmp_path, change=holed, **profile[kind])
    if footprints:
        masks = write_footprints(tmp_path / "roofs.gpkg")
    report, said = taken(images, masks, out)
    expected = mask_of("a")
    expected[:20, :30] = 127
    np.testing.assert_array_equal(values(out / "msks" / "a.tif"), expected)
    assert (out / "msks" / "unknown.txt").read_text() == "127\n"
    assert report.tiles[0].labelled == 1 - 600 / SIZE**2
    assert report.tiles[0].black == 0  # of the labelled pixels
    assert "6.5% of the pixels are unknown (without data); they are 127 in msks/" in said


def test_a_dataset_without_them_is_as_before(tmp_path: Path, out: Path) -> None:
    images, masks = write_pairs(tmp_path, nodata=0)
    report, said = taken(images, masks, out)
    assert said == []
    assert not (out / "msks" / "unknown.txt").exists()
    assert "labelled" not in table(report)
    assert (out / "msks" / "a.tif").read_bytes() == (masks / "a.tif").read_bytes()
    # Nor do areas or a value that leave nothing out.
    areas = write_areas(tmp_path / "all.gpkg", *NAMES)
    _, said = taken(images, masks, out.with_name("areas"), areas=areas, unknown=77)
    assert said == []
    assert (out.with_name("areas") / "msks" / "a.tif").read_bytes() == (
        masks / "a.tif"
    ).read_bytes()


@pytest.mark.parametrize("suffix", cases([".gpkg", ".geojson"], {".geojson"}))
def test_nothing_is_known_outside_the_areas(tmp_path: Path, out: Path, suffix: str) -> None:
    images, masks = write_pairs(tmp_path, suffixes=(".tif", ".png"))
    crs = "EPSG:4326" if suffix == ".geojson" else "EPSG:3857"
    areas = write_areas(tmp_path / f"areas{suffix}", *NAMES[:-1], part=0.75, crs=crs)
    report, said = taken(images, masks, out, areas=areas)
    assert [tile.name for tile in report.tiles] == list(NAMES[:-1])
    assert said == [
        "left out, since none of their pixels is labelled: f",
        "25.0% of the pixels are unknown (without data, or outside the labelled areas); they are "
        "127 in msks/",
    ]
    assert sorted(path.name for path in (out / "imgs").iterdir()) == [f"{n}.tif" for n in "abcde"]
    assert sorted(path.name for path in (out / "msks").iterdir()) == [
        *(f"{name}.tif" for name in "abcde"), "unknown.txt"
    ]  # fmt: skip
    expected = mask_of("b")
    expected[:, 72:] = 127
    np.testing.assert_array_equal(values(out / "msks" / "b.tif"), expected)
    record = json.loads((out / "intake.json").read_text())
    assert (record["left_out"], record["areas"]) == (["f.tif"], areas.name)
    assert "f" not in record["tiles"]
    # And the dataset goes on from here.
    checked = inspect_dataset(out)
    assert not checked.problems
    assert "75.0%" in table(checked)
    make(out, tmp_path / "patches", fraction=0)
    for split in ("train", "val", "test"):
        for patch in read_patches(tmp_path / "patches" / split):
            assert (patch.mask == 255).mean() == 8 / 64  # columns 72 to 79 of 16 to 79


def test_a_split_may_list_tiles_outside_the_areas(tmp_path: Path, out: Path) -> None:
    images, masks = write_pairs(tmp_path)
    areas = write_areas(tmp_path / "areas.gpkg", *NAMES[:-1])
    split = tmp_path / "split.csv"
    split.write_text("tile,split\na,train\nb,train\nc,val\nd,test\nf,test\n")
    taken(images, masks, out, areas=areas, division=Division(file=split))
    assert read_split(out) == {"a": "train", "b": "train", "c": "val", "d": "test"}
    split.write_text("tile,split\na,train\nb,train\nc,val\nf,test\n")
    with pytest.raises(UserError, match=r"split\.csv: no tile of test is left, .* Move tiles"):
        taken(images, masks, out.with_name("b"), areas=areas, division=Division(file=split))


@pytest.mark.parametrize(("unknown", "building"), [(255, 1), (7, 255)])
def test_a_value_in_the_masks(tmp_path: Path, out: Path, unknown: int, building: int) -> None:
    images, masks = write_pairs(tmp_path, suffixes=(".tif", ".png"))
    own = np.where(mask_of("a") == 255, building, 0).astype(np.uint8)
    own[50:] = unknown
    write_raster(masks / "a.png", own)
    with pytest.raises(UserError, match=r"a\.png: rows 0 to 95 hold .* --unknown VALUE"):
        taken(images, masks, out)
    _, said = taken(images, masks, out.with_name("told"), unknown=unknown)
    if unknown == 255:  # the other masks hold it for building
        assert "left out" not in "".join(said)
        assert any(
            "whose masks hold 255, which means unknown (--unknown): if it" in s for s in said
        )
    folder = out.with_name("told") / "msks"
    expected = mask_of("a")
    expected[50:] = 127
    np.testing.assert_array_equal(values(folder / "a.tif"), expected)
    assert not (folder / "a.png").exists()
    assert (folder / "unknown.txt").read_text() == "127\n"


@pytest.mark.whole
def test_chips_that_are_merged_keep_them(tmp_path: Path, out: Path) -> None:
    """Six tiles of 2 x 2 chips: one chip without data, another unknown in its mask."""
    image, mask = tile_pixels(3, SIZE)
    whole, roofs = np.hstack([image] * 6), np.hstack([mask] * 6)
    side, truth = SIZE // 2, np.hstack([mask] * 6) * np.uint8(255)
    for row in range(2):
        for col in range(12):
            part = np.s_[row * side : (row + 1) * side, col * side : (col + 1) * side]
            pixels, label = whole[part].copy(), roofs[part].copy()
            if (row, col) == (1, 3):
                pixels[:], truth[part] = 0, 127
            elif (row, col) == (0, 4):
                label[:], truth[part] = 9, 127
            place = {
                "crs": CRS,
                "transform": TRANSFORM @ Affine.translation(col * side, row * side),
            }
            write_raster(tmp_path / "chips" / f"c{row}_{col:02}.tif", pixels, nodata=0, **place)
            write_raster(tmp_path / "labels" / f"c{row}_{col:02}.tif", label, **place)
    report, _ = taken(tmp_path / "chips", tmp_path / "labels", out, merge=2, unknown=9)
    assert [tile.labelled for tile in report.tiles] == [1, 0.75, 0.75, 1, 1, 1]
    found = np.hstack([values(out / "msks" / f"{tile.name}.tif") for tile in report.tiles])
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"areas": "none.gpkg"}, r"--areas .*none\.gpkg: no such file or folder"),
        ({"areas": "."}, r"--areas .*: is a folder; expected a file of polygons"),
        ({"areas": "empty.gpkg"}, "layer 'empty': has no features; expected polygons of labelled"),
        ({"areas": "far.gpkg"}, r"far\.gpkg: no tile has a labelled pixel\. Do areas and tiles"),
        ({"areas": "two.gpkg"}, r"several layers: 'a', 'b'\. Choose one with --areas-layer"),
        ({"areas_layer": "a"}, "--areas-layer a: names a layer .*, but no file"),
        ({"unknown": 127}, r"--unknown 127: names a value in masks, but .* holds footprints"),
    ],
)
def test_bad_input_is_one_clear_error(
    tmp_path: Path, out: Path, options: dict[str, Any], message: str
) -> None:
    images, _ = write_pairs(tmp_path)
    roofs = write_footprints(tmp_path / "roofs.gpkg")
    far = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326")
    layers = {"empty.gpkg": {"empty": far[:0]}, "far.gpkg": {"far": far}}
    layers["two.gpkg"] = {"a": far, "b": far}
    if "areas" in options:
        for layer, polygons in layers.get(options["areas"], {}).items():
            polygons.to_file(tmp_path / options["areas"], layer=layer)
        options = {**options, "areas": tmp_path / options["areas"]}
    with pytest.raises(UserError, match=message):
        taken(images, roofs, out, **options)


def test_areas_need_tiles_with_a_place(tmp_path: Path, out: Path) -> None:
    images, masks = write_pairs(tmp_path, georeferenced=False)
    areas = write_areas(tmp_path / "areas.gpkg", "a")
    with pytest.raises(UserError, match=r"a\.tif: has no CRS and no transform.* leave out --areas"):
        taken(images, masks, out, areas=areas)


def test_the_check_of_a_dataset_knows_them(tmp_path: Path, out: Path) -> None:
    images, masks = write_pairs(tmp_path)
    taken(images, masks, out)
    own = mask_of("b")
    own[:48] = 127
    write_raster(out / "msks" / "b.tif", own, crs=CRS, transform=place_of(1))
    assert "b.tif: rows 0 to 95 hold the values 0, 127, 255" in inspect_dataset(out).problems[0]
    declared = out / "msks" / "unknown.txt"
    declared.write_text("127\n")
    report = inspect_dataset(out)
    assert not report.problems
    assert [tile.labelled for tile in report.tiles] == [1, 0.5, 1, 1, 1, 1]
    assert report.tiles[1].building == (own == 255).sum() / (own != 127).sum()
    assert [line.split()[-2] for line in table(report).splitlines()[:3]] == [
        "labelled", "100.0%", "50.0%"
    ]  # fmt: skip
    write_raster(out / "msks" / "b.tif", own * 0 + 127, crs=CRS, transform=place_of(1))
    (problem,) = inspect_dataset(out).problems
    assert problem.endswith("b.tif: no pixel of it is labelled. Leave the tile out.")
    declared.write_text("none\n")
    assert any("unknown.txt: found 'none'" in line for line in inspect_dataset(out).problems)
