"""Making a dataset of chips of a web map, as fAIr and OpenAerialMap give them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import brought
import geopandas
import numpy as np
import pytest
import rasterio
from tiers import cases
from tiny_dataset import make, write_raster
from web_tiles import HALF, ZOOM, scene, tile_at, tile_transform, write_chips

from roofseg.core.errors import UserError
from roofseg.intake.division import Division
from roofseg.intake.inspect import Report, inspect_dataset
from roofseg.patches import read_crops
from roofseg.recipe.split import read_split
from roofseg.tiles.grid import read_grid, shift_px
from roofseg.tiles.rasters import open_raster
from roofseg.tiles.tile import read_tile_mask

PX = 64  # of a chip
PATCH = 128
COUNT = 10  # chips on a side of the scene
GSD_AT_EQUATOR = 2 * HALF / 2**ZOOM / PX


def taken(images: Path, masks: Path, out: Path, **options: Any) -> tuple[Report, list[str]]:
    return brought.taken(images, masks, out, **{"patch_size": PATCH, **options})


def pixels(path: Path) -> np.ndarray:
    with open_raster(path) as source:
        return source.read().transpose(1, 2, 0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "kathmandu"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "mine" / "labels.geojson"


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        pytest.param("chips", {"crs": "EPSG:4326"}, id="degrees"),
        *(
            pytest.param(folder, options, id=name, marks=pytest.mark.whole)
            for name, folder, options in (
                ("Web Mercator", "chips", {"crs": "EPSG:3857", "suffix": ".png"}),
                ("by name", "chips", {"crs": None, "suffix": ".png"}),
                ("plain TIFF by name", "chips", {"crs": None, "suffix": ".tif"}),
                ("z/x/y", "tiles/19", {"crs": None, "suffix": ".png", "name": "{x}/{y}"}),
                ("Svalbard", "chips", {"crs": "EPSG:4326", "at": (15.6, 78.2)}),
            )
        ),
    ],
)
def test_chips_and_one_geojson_become_a_dataset(
    tmp_path: Path, out: Path, labels: Path, folder: str, options: dict[str, Any]
) -> None:
    """Pixels and masks are those of the scene, in tiles of a patch, and patches can be cut."""
    images = tmp_path / "mine" / folder
    write_chips(images, COUNT, COUNT, px=PX, **options)
    # Labels lie beside the folder of the chips; for z/x/y, that is one folder further up.
    report, said = taken(images, images.parent / "labels.geojson", out)
    assert len(report.tiles) == 25
    assert any("2 x 2 chips were merged into each of 25 tiles" in line for line in said)
    image, mask = scene(COUNT, COUNT, PX)
    x, y = tile_at(*options.get("at", (85.32, 27.7)))
    crs = options["crs"] or "EPSG:3857"
    for tile in report.tiles:
        found = re.fullmatch(r"(?:OAM-)?(\d+)-(\d+)-19_2x2", tile.name)
        assert found
        column, row = int(found[1]) - x, int(found[2]) - y
        part = np.s_[row * PX : row * PX + PATCH, column * PX : column * PX + PATCH]
        np.testing.assert_array_equal(pixels(out / "imgs" / f"{tile.name}.tif"), image[part])
        np.testing.assert_array_equal(read_tile_mask(out / "msks" / f"{tile.name}.tif"), mask[part])
        with open_raster(out / "imgs" / f"{tile.name}.tif") as source:
            grid = read_grid(source)
        assert grid.crs is not None
        assert grid.crs.to_string() == crs
        assert shift_px(grid, tile_transform(x + column, y + row, crs, px=PX)) < 0.1
    counts = [tile.split for tile in report.tiles]
    assert [counts.count(split) for split in ("val", "test")] == pytest.approx([4, 4], abs=2)
    checked = inspect_dataset(out)
    assert checked.problems == ()
    assert make(out, tmp_path / "patches", PATCH) == []
    cosine = math.cos(math.radians(options.get("at", (0, 27.7))[1]))
    gsd = read_crops(tmp_path / "patches" / "train").gsd
    assert gsd.tolist() == pytest.approx([cosine * GSD_AT_EQUATOR] * len(gsd), rel=0.01)


class TestLabels:
    @pytest.mark.whole
    def test_a_geojson_for_each_chip(self, tmp_path: Path, out: Path, labels: Path) -> None:
        images = tmp_path / "mine" / "chips"
        paths = write_chips(images, COUNT, COUNT, px=PX)
        roofs = geopandas.read_file(labels).to_crs(3857)[COUNT:]  # some chips have none
        (labels.parent / "labels").mkdir()
        for path in paths.values():
            with open_raster(path) as source:
                inside = roofs.clip(source.bounds)
            own = labels.parent / "labels" / f"{path.stem}.geojson"
            own.write_text('{"type": "FeatureCollection", "features": []}')
            if len(inside):
                inside.to_file(own, driver="GeoJSON")
        report, _ = taken(images, labels.parent / "labels", out)
        roofs.to_file(labels, driver="GeoJSON")
        other, _ = taken(images, labels, tmp_path / "data" / "other")
        assert [tile.building for tile in report.tiles] == [tile.building for tile in other.tiles]
        assert len(report.tiles) == 25
        record = json.loads((out / "intake.json").read_text())["tiles"][report.tiles[0].name]
        assert record["chips"][0]["mask"] == record["chips"][0]["image"].replace("tif", "geojson")

    @pytest.mark.whole
    def test_a_mask_for_each_chip(self, tmp_path: Path, out: Path, labels: Path) -> None:
        images, masks = tmp_path / "mine" / "chips", tmp_path / "mine" / "masks"
        _, mask = scene(COUNT, COUNT, PX)
        for (col, row), path in write_chips(images, COUNT, COUNT, px=PX, crs=None).items():
            part = mask[row * PX : (row + 1) * PX, col * PX : (col + 1) * PX]
            write_raster(masks / f"{path.stem}.png", part * np.uint8(255))
        taken(images, masks, out)
        taken(images, labels, tmp_path / "data" / "other")
        for path in (out / "msks").glob("*.tif"):
            other = tmp_path / "data" / "other" / "msks" / path.name
            np.testing.assert_array_equal(read_tile_mask(path), read_tile_mask(other))

    def test_a_mask_of_another_size_is_named(self, tmp_path: Path, out: Path) -> None:
        images, masks = tmp_path / "mine" / "chips", tmp_path / "mine" / "masks"
        for path in write_chips(images, COUNT, COUNT, px=PX).values():
            write_raster(masks / f"{path.stem}.png", np.ones((PX, PX - 1), np.uint8))
        with pytest.raises(UserError, match=r"masks/OAM-.*\.png: 63 x 64 px, but its image .*/chi"):
            taken(images, masks, out)


class TestMerge:
    @pytest.mark.whole
    def test_what_was_merged_and_left_out_is_recorded(
        self, tmp_path: Path, out: Path, labels: Path
    ) -> None:
        images = tmp_path / "mine" / "chips"
        paths = write_chips(images, COUNT + 1, COUNT, px=PX, without=[(0, 0)])
        report, said = taken(images, labels, out)
        record = json.loads((out / "intake.json").read_text())
        merged = [chip["image"] for tile in record["tiles"].values() for chip in tile["chips"]]
        assert len(merged) == 4 * len(report.tiles) == 100
        assert sorted(merged + record["left_out"]) == sorted(path.name for path in paths.values())
        assert any(line.startswith("left out, since they belong to no such") for line in said)
        assert record["split"]["square"] > PATCH * GSD_AT_EQUATOR / 2
        (line,) = (line for line in said if "--block" in line)
        assert f"square of {record['split']['square']:g} m" in line

    @pytest.mark.parametrize(
        ("options", "tiles", "side"),
        [
            pytest.param({"merge": 1}, 36, PX, id="none", marks=pytest.mark.whole),
            pytest.param({"merge": 3}, 4, 3 * PX, id="three"),
            pytest.param({}, 36, PX, id="too few to merge", marks=pytest.mark.whole),
        ],
    )
    def test_the_side_can_be_set(
        self,
        tmp_path: Path,
        out: Path,
        labels: Path,
        options: dict[str, int],
        tiles: int,
        side: int,
    ) -> None:
        images = tmp_path / "mine" / "chips"
        write_chips(images, 6, 6, px=PX)
        report, _ = taken(images, labels, out, **options)
        assert len(report.tiles) == tiles
        assert {tile.grid.width for tile in report.tiles if tile.grid} == {side}

    @pytest.mark.whole
    def test_a_split_of_the_users_is_of_files(
        self, tmp_path: Path, out: Path, labels: Path
    ) -> None:
        images = tmp_path / "mine" / "chips"
        paths = write_chips(images, COUNT, COUNT, px=PX)
        mine = {
            path.stem: ("test", "val", "train")[min(col, 2)] for (col, _), path in paths.items()
        }
        lines = "".join(f"{name},{split}\n" for name, split in mine.items())
        (tmp_path / "mine.csv").write_text(f"tile,split\n{lines}")
        taken(images, labels, out, division=Division(file=tmp_path / "mine.csv"))
        assert read_split(out) == mine

    @pytest.mark.parametrize("merge", [1, 2])
    def test_a_side_and_a_split_exclude_each_other(
        self, tmp_path: Path, out: Path, labels: Path, merge: int
    ) -> None:
        write_chips(tmp_path / "mine" / "chips", 4, 4, px=PX)
        (tmp_path / "mine.csv").touch()
        mine = Division(file=tmp_path / "mine.csv")
        with pytest.raises(UserError, match=f"^--merge {merge}: cannot be used with --split"):
            taken(tmp_path / "mine" / "chips", labels, out, division=mine, merge=merge)

    @pytest.mark.whole
    def test_chips_that_are_left_out_have_no_part_in_the_scale(
        self, tmp_path: Path, out: Path, labels: Path
    ) -> None:
        images = tmp_path / "mine" / "chips"
        paths = write_chips(images, COUNT + 1, COUNT, px=PX)
        for (column, _), path in paths.items():
            with open_raster(path) as source:
                place = {"crs": source.crs, "transform": source.transform}
            wide = pixels(path).astype(np.uint16)
            write_raster(path, wide + 60_000 * (column == COUNT), **place)
        taken(images, labels, out)
        record = json.loads((out / "intake.json").read_text())
        assert len(record["left_out"]) == COUNT
        assert record["scale"]["high"] < 256

    @pytest.mark.whole
    def test_chips_of_several_sizes_become_tiles_of_one_size(
        self, tmp_path: Path, out: Path, labels: Path
    ) -> None:
        images = tmp_path / "mine" / "chips"
        write_chips(images, 4, 4, px=2 * PX, at=(85, 27), name="large-{x}-{y}-{z}")
        write_chips(images, COUNT, COUNT + 1, px=PX)
        report, said = taken(images, labels, out, patch_size=4 * PX)
        assert {tile.grid.width for tile in report.tiles if tile.grid} == {2 * PX}
        assert len(report.tiles) == 25 + 16
        record = json.loads((out / "intake.json").read_text())
        assert len(record["left_out"]) == COUNT  # a row of small chips
        assert sum("2 x 2 chips were merged into each of 25" in line for line in said) == 1

    @pytest.mark.parametrize("px", cases([199, 200, 255], whole=[199, 255]))
    def test_a_lone_tile_that_holds_a_patch_is_kept(
        self, tmp_path: Path, out: Path, labels: Path, px: int
    ) -> None:
        """Even if it is smaller than the merged tiles."""
        images = tmp_path / "mine" / "chips"
        write_chips(images, 1, 1, px=px, at=(85, 27), name="lone-{x}-{y}-{z}")
        write_chips(images, 8, 8, px=PX)
        report, _ = taken(images, labels, out, patch_size=200, merge=4)
        assert len(report.tiles) == (5 if px >= 200 else 4)

    @pytest.mark.parametrize(
        ("merge", "says"), [(0, "found 0; expected 1"), (4, "found 4, but no 4")]
    )
    def test_impossible_sides(
        self, tmp_path: Path, out: Path, labels: Path, merge: int, says: str
    ) -> None:
        write_chips(tmp_path / "mine" / "chips", 3, 3, px=PX)
        with pytest.raises(UserError, match=f"^--merge: {says}"):
            taken(tmp_path / "mine" / "chips", labels, out, merge=merge)


class TestBlocks:
    @pytest.mark.whole
    def test_squares_that_are_too_large_are_answered_with_a_side_that_works(
        self, tmp_path: Path, out: Path, labels: Path
    ) -> None:
        images = tmp_path / "mine" / "chips"
        write_chips(images, COUNT, COUNT, px=PX)
        with pytest.raises(UserError, match=r"^--block: squares of 5000 m .* Use --block") as error:
            taken(images, labels, out, division=Division(side=5000))
        side = float(str(error.value).split("--block ")[-1].rstrip("."))
        taken(images, labels, tmp_path / "data" / "second", division=Division(side=side))
        recorded = json.loads((tmp_path / "data" / "second" / "intake.json").read_text())
        assert recorded["split"]["square"] == side

    @pytest.mark.whole
    def test_neighbours_in_different_splits_are_a_warning(
        self, tmp_path: Path, out: Path, labels: Path
    ) -> None:
        images = tmp_path / "mine" / "chips"
        write_chips(images, 4, 4, px=PX)
        report, _ = taken(images, labels, out)
        assert any("tiles of different splits touch" in line for line in report.warnings)


def test_a_pyramid_of_zooms_asks_for_one(tmp_path: Path, out: Path) -> None:
    write_chips(tmp_path / "tiles" / "19", 2, 2, px=PX, crs=None, name="{x}/{y}")
    labels = (tmp_path / "tiles" / "labels.geojson").rename(tmp_path / "labels.geojson")
    with pytest.raises(UserError, match=r"holds no raster.*web tiles \(z/x/y\.png\), of which one"):
        taken(tmp_path / "tiles", labels, out)


@pytest.mark.parametrize("named", [".", "../19", "../zoom", "../latest/19"])
def test_the_zoom_is_known_however_its_folder_is_named(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    zoom = tmp_path / "tiles" / "19"
    write_chips(zoom, 3, 3, px=PX, crs=None, name="{x}/{y}")
    (tmp_path / "tiles" / "zoom").symlink_to("19")
    (tmp_path / "tiles" / "latest").mkdir()
    (tmp_path / "tiles" / "latest" / "19").symlink_to("../19")
    monkeypatch.chdir(zoom)
    report, _ = taken(Path(named), Path("../labels.geojson"), out)
    assert len(report.tiles) == 9


def write_world_files(paths: Iterable[Path], crs: str, shift: float) -> None:
    for path in paths:
        *_, x, y, _ = path.stem.split("-")
        a, b, c, d, e, f, *_ = tile_transform(int(x), int(y), crs, px=PX)
        numbers = (a, d, b, e, c + a / 2 + shift, f + e / 2)
        path.with_suffix(".pgw").write_text("\n".join(f"{number:.12f}" for number in numbers))


@pytest.mark.parametrize("shift", [0, 500])
def test_a_world_file_that_contradicts_the_names_counts(
    tmp_path: Path, out: Path, shift: float
) -> None:
    images = tmp_path / "mine" / "chips"
    paths = write_chips(images, 3, 3, px=PX, crs=None, suffix=".png")
    write_world_files(paths.values(), "EPSG:3857", shift)
    for path in paths.values():
        mask = np.zeros((PX, PX), np.uint8)
        mask[:9, :9] = 1
        write_raster(tmp_path / "mine" / "masks" / path.name, mask)
    report, said = taken(images, tmp_path / "mine" / "masks", out)
    placed = {str(tile.grid.crs) for tile in report.tiles if tile.grid}
    assert placed == ({"None"} if shift else {"EPSG:3857"})
    assert len(list((out / "imgs").glob("*.aux.xml"))) == (0 if shift else 9)
    (line,) = (line for line in said if "x-y-z" in line)
    assert line.startswith(
        "without a CRS, and not placed by their" if shift else "without a CRS, placed by their"
    )


def test_world_files_in_degrees_need_a_crs(tmp_path: Path, out: Path, labels: Path) -> None:
    images = tmp_path / "mine" / "chips"
    paths = write_chips(images, 3, 3, px=PX, crs=None, suffix=".png")
    write_world_files(paths.values(), "EPSG:4326", 0)
    with pytest.raises(UserError, match=r"State its CRS \(`gdal_edit\.py -a_srs EPSG:CODE`\)"):
        taken(images, labels, out)
    for path in paths.values():  # as this command does
        with rasterio.open(path, "r+") as target:
            target.crs = "EPSG:4326"
    report, _ = taken(images, labels, out)
    assert {str(tile.grid.crs) for tile in report.tiles if tile.grid} == {"EPSG:4326"}
