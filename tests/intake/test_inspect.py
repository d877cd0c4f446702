"""Inspecting datasets: findings, problems and warnings; damaged files give no other errors."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from raster_files import name_bands
from rasterio.transform import Affine
from tiny_dataset import CRS, TRANSFORM, tile_pixels, write_dataset, write_raster
from unwritable import nobody, public_folder

from roofseg.core.errors import UserError, raise_all
from roofseg.cutting.find import find_rasters
from roofseg.intake import inspect
from roofseg.intake.convert import find_scale, read_image_header, write_rgb
from roofseg.intake.inspect import (
    black_share,
    building_share,
    inspect_dataset,
    inspect_tile,
    parts,
    table,
)
from roofseg.tiles.tile import TilePair

SPLIT = {"b": "train", "a": "train", "c": "val", "d": "test"}
GEO = {"crs": CRS, "transform": TRANSFORM}
IMAGE, MASK = tile_pixels(1, 96)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset without problems, whose tiles do not touch."""
    folder = write_dataset(tmp_path / "data" / "mine", SPLIT)
    for index, name in enumerate(SPLIT):
        place = TRANSFORM @ Affine.translation(index * 200, 0)
        for kind in ("imgs", "msks"):
            with rasterio.open(folder / kind / f"{name}.tif", "r+") as target:
                target.transform = place
    return folder


def damage(path: Path) -> None:
    """Zero some bytes in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)


class TestInspect:
    def test_a_dataset_without_problems(self, dataset: Path) -> None:
        report = inspect_dataset(dataset)
        assert (report.problems, report.warnings) == ((), ())
        assert [(tile.name, tile.split) for tile in report.tiles] == sorted(SPLIT.items())
        assert {tile.building for tile in report.tiles} == {1 / 16}
        assert {tile.black for tile in report.tiles} == {0}
        assert {tile.grid.gsd for tile in report.tiles if tile.grid} == {0.3}

    def test_all_problems_are_found_at_once(self, dataset: Path) -> None:
        imgs, msks = dataset / "imgs", dataset / "msks"
        write_raster(imgs / "a.tif", IMAGE[:, :, :2])
        write_raster(msks / "b.tif", 255 - MASK * np.uint8(255), **GEO)
        (imgs / "c.tif").write_bytes(b"")
        (msks / "d.tif").unlink()
        (dataset / "split.csv").write_text("tile,split\na,train\nb,val\nc,test\nx,train\n")
        (dataset / "nudges.csv").unlink()
        (imgs / "loop.tif").symlink_to("loop.tif")
        for name in ("e.tif", "E.png"):
            (imgs / name).touch()
        problems = "\n".join(inspect_dataset(dataset).problems)
        for says in (
            r"imgs/a\.tif: 2 bands of uint8; expected 8-bit RGB",
            r"msks/b\.tif: 93\.8% of it is building; expected 90% at most.*inverted\?",
            r"imgs/c\.tif: cannot be read",
            r"msks: no file for the tile d, which is in imgs",
            r"split\.csv: lists x, but imgs and msks",
            r"nudges\.csv: no such file",
            r"imgs/loop\.tif: a broken link",
            r"imgs/e\.tif: E\.png in the same folder has the same name",
        ):
            assert re.search(says, problems), says
        assert problems.count("imgs/c.tif: cannot be read") == 1
        with pytest.raises(UserError, match=r"^\d+ problems:\n  .*\n  ") as caught:
            raise_all(inspect_dataset(dataset).problems)
        assert str(caught.value).count("\n") == len(inspect_dataset(dataset).problems)

    def test_oddities_are_warnings(self, dataset: Path) -> None:
        (dataset / "split.csv").write_text("tile,split\na,train\nb,val\nc,test\n")
        full = np.zeros((96, 96), np.uint8)
        full[:60] = 255
        write_raster(dataset / "msks" / "a.tif", full)
        write_raster(dataset / "msks" / "b.tif", full * 0)
        dark = IMAGE.copy()
        dark[:20] = 0
        beside = TRANSFORM @ Affine.translation(400 - 96, 0)
        write_raster(dataset / "imgs" / "b.tif", dark, crs=CRS, transform=beside)
        report = inspect_dataset(dataset)
        assert report.problems == ()
        assert report.warnings == (
            "split.csv does not list d, which the pipeline leaves out",
            "more than 50% of a is building: is it inverted?",
            "no building in b",
            "more than 10% of b is black: is data missing there?",
            "tiles of different splits touch or overlap, so scores will be too high: "
            "b (val), c (test)",
        )

    def test_tiles_that_differ_in_gsd_are_a_warning(self, dataset: Path) -> None:
        coarse = TRANSFORM @ Affine.translation(900, 0) @ Affine.scale(2)
        for kind, pixels in (("imgs", IMAGE), ("msks", MASK)):
            write_raster(dataset / kind / "a.tif", pixels, crs=CRS, transform=coarse)
        assert inspect_dataset(dataset).warnings == (
            "tiles differ in GSD (0.3, 0.6 m), so roofs differ in their size in pixels",
        )

    def test_bands_in_another_order_are_a_warning(self, dataset: Path) -> None:
        for name in ("b", "d"):
            path = dataset / "imgs" / f"{name}.tif"
            with rasterio.open(path) as source:
                place = {"crs": source.crs, "transform": source.transform}
            write_raster(path, IMAGE, photometric="minisblack", **place)
            name_bands(path, "blue", "green", "red")
        report = inspect_dataset(dataset)
        assert report.problems == ()
        assert report.warnings == (
            "3 bands of uint8: bands 3, 2, 1 are read as red, green, blue (by colour "
            "interpretation): b, d",
        )

    @pytest.mark.parametrize(("rows", "count"), [(60, 0), (70, 1)])
    def test_masks_that_are_inverted_together(self, dataset: Path, rows: int, count: int) -> None:
        """No mask exceeds the limit of one tile, but together they exceed that of all."""
        full = np.zeros((96, 96), np.uint8)
        full[:rows] = 255
        for name in SPLIT:
            write_raster(dataset / "msks" / f"{name}.tif", full)
        problems = inspect_dataset(dataset).problems
        says = f"{dataset / 'msks'}: 72.9% of the masks is building; expected 70% at most, with 0 "
        assert [problem.startswith(says) for problem in problems] == [True] * count

    @pytest.mark.parametrize(
        "record", ["{", "[]", "{}", '{"gsd": "1"}', '{"gsd": 0}', '{"gsd": NaN}', '{"gsd": 1e999}']
    )
    def test_a_broken_intake_json(self, dataset: Path, record: str) -> None:
        (dataset / "intake.json").write_text(record)
        (problem,) = inspect_dataset(dataset).problems
        assert problem.startswith(f"{dataset}/intake.json: expected JSON with a GSD")

    def test_no_building_anywhere_is_a_problem(self, dataset: Path) -> None:
        for name in SPLIT:
            write_raster(dataset / "msks" / f"{name}.tif", MASK * 0)
        assert inspect_dataset(dataset).problems == (
            f"{dataset / 'msks'}: no building in any mask. Do footprints and tiles cover the same "
            "ground?",
        )

    def test_a_folder_without_tiles(self, dataset: Path) -> None:
        for kind in ("imgs", "msks"):
            shutil.rmtree(dataset / kind)
            (dataset / kind).mkdir()
        problems = inspect_dataset(dataset).problems
        assert problems[-1].startswith(f"{dataset / 'msks'}: no mask belongs to an image")

    @pytest.mark.parametrize(
        ("stages", "remedy"),
        [
            ("", "Put them there, or get them with `dvc pull` where DVC tracks them."),
            (
                "stages: {other: {cmd: x}}",
                "Put them there, or get them with `dvc pull` where DVC tracks them.",
            ),
            (
                "stages: {mine: {cmd: x}}",
                "Make them with `dvc repro DATA/dvc.yaml:mine`, or get them with `dvc pull`.",
            ),
        ],
        ids=["no dvc.yaml", "stages of other datasets", "a stage of this dataset"],
    )
    def test_a_missing_folder_is_the_only_problem(
        self, dataset: Path, stages: str, remedy: str
    ) -> None:
        if stages:
            (dataset.parent / "dvc.yaml").write_text(stages)
        shutil.rmtree(dataset / "msks")
        (problem,) = inspect_dataset(dataset).problems
        says = f"{dataset / 'msks'}: no such folder; expected one raster for each tile. {remedy}"
        assert problem == says.replace("DATA", str(dataset.parent))

    def test_no_such_dataset(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nowhere: no such folder; expected a dataset"):
            inspect_dataset(tmp_path / "nowhere")

    @pytest.mark.parametrize("kind", ["imgs", "msks"])
    def test_damage_anywhere_in_a_file_is_found(self, dataset: Path, kind: str) -> None:
        noise = np.random.default_rng(1).integers(0, 2, (96, 96, 3)).astype(np.uint8)
        pixels = noise if kind == "imgs" else noise[:, :, 0]
        write_raster(dataset / kind / "a.tif", pixels, compress="deflate")
        damage(dataset / kind / "a.tif")
        (problem,) = inspect_dataset(dataset).problems
        assert re.search(rf"{kind}/a\.tif: cannot be read", problem)

    @pytest.mark.parametrize(
        ("mask", "says"),
        [
            ({"crs": "EPSG:32615", "transform": TRANSFORM}, "its CRS is EPSG:32615, but"),
            ({"crs": CRS, "transform": TRANSFORM @ Affine.translation(3, 0)}, "3 px away from"),
            ({"crs": CRS, "transform": TRANSFORM @ Affine.rotation(10)}, "px away from its image"),
        ],
        ids=["CRS", "moved", "rotated"],
    )
    def test_image_and_mask_on_different_ground(
        self, tmp_path: Path, mask: dict[str, object], says: str
    ) -> None:
        write_raster(tmp_path / "a.tif", IMAGE, **GEO)
        write_raster(tmp_path / "m.tif", MASK, **mask)
        report = inspect_tile(TilePair("a", "", tmp_path / "a.tif", tmp_path / "m.tif"))
        assert says in report.problems[0]
        assert report.grid is None
        assert report.building == 1 / 16

    def test_a_transform_without_area(self, tmp_path: Path) -> None:
        flat = Affine(0.3, 0, 1, 0.3, 0, 1)
        write_raster(tmp_path / "a.tif", IMAGE, crs=CRS, transform=flat)
        write_raster(tmp_path / "m.tif", MASK)
        report = inspect_tile(TilePair("a", "", tmp_path / "a.tif", tmp_path / "m.tif"))
        assert "a.tif: its transform maps all pixels to one line" in report.problems[0]

    def test_an_image_that_is_black_throughout(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "a.tif", IMAGE * 0)
        write_raster(tmp_path / "m.tif", MASK)
        report = inspect_tile(TilePair("a", "", tmp_path / "a.tif", tmp_path / "m.tif"))
        assert "a.tif: all pixels are black" in report.problems[0]

    def test_a_tile_smaller_than_any_patch(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "a.tif", IMAGE[:20])
        write_raster(tmp_path / "m.tif", MASK[:20])
        report = inspect_tile(TilePair("a", "", tmp_path / "a.tif", tmp_path / "m.tif"))
        assert "96 x 20 px, smaller than a patch of 32 px" in report.problems[0]


class TestShares:
    @pytest.mark.parametrize("building", [1, 255])
    def test_building_and_black(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, building: int
    ) -> None:
        monkeypatch.setattr(inspect, "PART_BYTES", 5000)  # many parts
        write_raster(tmp_path / "m.tif", MASK * np.uint8(building))
        assert building_share(tmp_path / "m.tif") == 1 / 16
        image = np.where(MASK[:, :, None] == 1, 0, IMAGE)
        image[0, 0] = (0, 0, 1)
        write_raster(tmp_path / "a.tif", image, tiled=True, blockxsize=16, blockysize=16)
        assert black_share(tmp_path / "a.tif") == (image == 0).all(axis=2).mean()

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ([0, 128, 255], "0, 128, 255"),
            ([0, 1, 255], "0, 1, 255"),
            ([0, 7], "0, 7"),
            ([*range(9)], "0, 1, 2, 3, 4, 5, ..."),
        ],
        ids=["soft", "two", "classes", "many"],
    )
    def test_soft_masks_and_classes(self, tmp_path: Path, values: list[int], says: str) -> None:
        pixels = np.zeros((40, 40), np.uint8)
        pixels[0, : len(values)] = values
        write_raster(tmp_path / "m.png", pixels)
        says = re.escape(f"m.png: rows 0 to 39 hold the values {says}; expected 0 for background")
        with pytest.raises(UserError, match=says):
            building_share(tmp_path / "m.png")

    def test_a_mask_saved_as_jpeg_is_soft(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "m.jpg", MASK * np.uint8(255))
        with pytest.raises(UserError, match=r"m\.jpg: .* or saved as JPEG\) needs a threshold"):
            building_share(tmp_path / "m.jpg")

    def test_masks_with_other_numbers(self, tmp_path: Path) -> None:
        pixels = MASK.astype(np.float32)
        pixels[5, 5] = np.nan
        write_raster(tmp_path / "m.tif", pixels)
        with pytest.raises(UserError, match=r"m\.tif: rows 0 to 95 hold the values 0, 1, nan"):
            building_share(tmp_path / "m.tif")

    @pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
    def test_complex_numbers(self, tmp_path: Path, dtype: str) -> None:
        """NumPy does not know GDAL's type complex_int16."""
        form = {"driver": "GTiff", "height": 40, "width": 40, "count": 3, "dtype": dtype}
        with rasterio.open(tmp_path / "m.tif", "w", **form, **GEO):
            pass
        for read in (building_share, read_image_header):
            with pytest.raises(UserError, match=rf"m\.tif: holds numbers of type {dtype}; expect"):
                read(tmp_path / "m.tif")

    @given(st.integers(1, 90), st.integers(1, 90), st.integers(10, 20_000), st.booleans())
    def test_parts_cover_a_raster_once(
        self, height: int, width: int, room: int, tiled: bool
    ) -> None:
        seen = np.zeros((height, width), int)
        with pytest.MonkeyPatch.context() as patch, rasterio.io.MemoryFile() as file:
            patch.setattr(inspect, "PART_BYTES", room)
            layout = {"tiled": True, "blockxsize": 16, "blockysize": 32} if tiled else {}
            with file.open(
                driver="GTiff", height=height, width=width, count=1, dtype="uint8", **GEO, **layout
            ) as source:
                for part in parts(source):
                    seen[part.toslices()] += 1
                    assert part.row_off + part.height <= height
                    assert part.col_off + part.width <= width
                    whole_blocks = source.block_shapes[0][0] * source.block_shapes[0][1]
                    assert part.height * part.width <= max(room, whole_blocks)
        assert (seen == 1).all()

    @pytest.mark.parametrize("sides", [(60_000, 60_000), (2**30, 2**20)])
    def test_a_decompression_bomb_is_not_unpacked(
        self, tmp_path: Path, sides: tuple[int, int]
    ) -> None:
        path = tmp_path / "m.tif"
        sparse = {"sparse_ok": True, "bigtiff": "yes", "tiled": True}
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=sides[0],
            width=sides[1],
            count=1,
            dtype="uint8",
            blockxsize=2**14,
            blockysize=2**14,
            **GEO,
            **sparse,
        ):
            pass
        with pytest.raises(UserError, match=r"m\.tif: .* GiB of pixels; .* --max-expansion"):
            building_share(path)

    def test_the_limit_can_be_set(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inspect, "BOMB_BYTES", 1000)
        write_raster(tmp_path / "m.tif", MASK, compress="deflate")
        with pytest.raises(UserError, match="expected at most 2 times the size"):
            building_share(tmp_path / "m.tif", max_expansion=2)
        assert building_share(tmp_path / "m.tif", max_expansion=1000) == 1 / 16


class TestFindRasters:
    def test_sidecars_hidden_files_and_folders_are_not_rasters(self, dataset: Path) -> None:
        for name in ("a.tif.aux.xml", "a.TFW", ".DS_Store", "notes.txt"):
            (dataset / "imgs" / name).touch()
        (dataset / "imgs" / "up").symlink_to(dataset)
        problems: list[str] = []
        assert sorted(find_rasters(dataset / "imgs", problems)) == sorted(SPLIT)
        assert problems == []

    @pytest.mark.parametrize("target", ["a.tif", "b.tif", "gone.tif"])
    def test_broken_links(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "a.tif").symlink_to(target)
        (tmp_path / "b.tif").symlink_to("a.tif")
        problems: list[str] = []
        assert find_rasters(tmp_path, problems) == {}
        assert len(problems) == 2
        assert "a.tif: a broken link" in problems[0]

    def test_a_folder_that_is_a_loop(self, tmp_path: Path) -> None:
        (tmp_path / "imgs").symlink_to("imgs")
        problems: list[str] = []
        assert find_rasters(tmp_path / "imgs", problems) == {}
        assert re.search("imgs: cannot be listed .*symbolic links", problems[0])

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.tif")
        problems: list[str] = []
        assert find_rasters(tmp_path, problems) == {}
        assert "a.tif: not a regular file" in problems[0]

    def test_a_name_that_is_not_utf8(self, tmp_path: Path) -> None:
        Path(os.fsdecode(bytes(tmp_path) + b"/a\xff.tif")).touch()
        problems: list[str] = []
        assert find_rasters(tmp_path, problems) == {}
        assert problems == [f"{tmp_path}/a\\udcff.tif: its name is not UTF-8. Rename it."]

    def test_a_name_with_a_line_break(self, tmp_path: Path) -> None:
        (tmp_path / "a\nb.tif").touch()
        problems: list[str] = []
        assert find_rasters(tmp_path, problems) == {}
        says = "its name has a line break or control character. Rename it."
        assert problems == [f"{tmp_path}/a\\nb.tif: {says}"]

    @pytest.mark.parametrize("names", [("a.tif", "a.png"), ("a.tif", "A.tif"), ("é.tif", "é.png")])
    def test_two_files_for_a_tile(self, tmp_path: Path, names: tuple[str, str]) -> None:
        for name in names:
            (tmp_path / name).touch()
        problems: list[str] = []
        assert len(find_rasters(tmp_path, problems)) == 1
        assert "expected one file for each tile" in problems[0]

    def test_a_folder_without_permission_to_list(self) -> None:
        problems: list[str] = []
        with public_folder() as public:
            public.chmod(0)
            with nobody():
                assert find_rasters(public, problems) == {}
        assert problems == [f"{public}: cannot be listed (Permission denied)."]

    def test_a_file_without_permission_to_read(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "m.tif", MASK)
        says = r"m\.tif: cannot be read.*Permission denied"
        with public_folder() as public:
            shutil.copy(tmp_path / "m.tif", public)
            (public / "m.tif").chmod(0)
            with nobody(), pytest.raises(UserError, match=says):
                building_share(public / "m.tif")


def test_the_table_shows_all_findings(dataset: Path) -> None:
    (dataset / "imgs" / "a.tif").write_bytes(b"")
    write_raster(dataset / "imgs" / "c.tif", IMAGE)
    write_raster(dataset / "msks" / "c.tif", MASK)
    (dataset / "intake.json").write_text('{"gsd": 0.5}')
    lines = table(inspect_dataset(dataset)).splitlines()
    assert [line.split() for line in lines] == [
        ["tile", "split", "size,", "px", "GSD,", "m", "CRS", "building", "black", "problems"],
        ["a", "train", "?", "?", "?", "6.2%", "?", "1"],
        ["b", "train", "96", "x", "96", "0.3", CRS, "6.2%", "0.0%", "-"],
        ["c", "val", "96", "x", "96", "0.5", "(stated)", "-", "6.2%", "0.0%", "-"],
        ["d", "test", "96", "x", "96", "0.3", CRS, "6.2%", "0.0%", "-"],
    ]


# Fuzzing


def whole_rasters(folder: Path) -> list[Path]:
    """A raster of each common layout, compression and type."""
    kinds = {
        "strips.tif": (IMAGE, GEO),
        "tiles.tif": (IMAGE, {"tiled": True, "blockxsize": 32, "blockysize": 32, **GEO}),
        "deflate.tif": (IMAGE, {"compress": "deflate", "predictor": 2, **GEO}),
        "jpeg.tif": (IMAGE, {"compress": "jpeg", "photometric": "ycbcr", **GEO}),
        "big.tif": (IMAGE, {"bigtiff": "yes", **GEO}),
        "16bit.tif": (IMAGE.astype(np.uint16) * 9, {"compress": "lzw", **GEO}),
        "float.tif": (IMAGE.astype(np.float32), {"nodata": -1, **GEO}),
        "alpha.tif": (np.dstack([IMAGE, MASK]), {"photometric": "rgb", "alpha": "yes", **GEO}),
        "mask.tif": (MASK, {"compress": "deflate", **GEO}),
        "plain.png": (IMAGE, {}),
        "plain.jpg": (IMAGE, {}),
    }
    for name, (pixels, profile) in kinds.items():
        write_raster(folder / name, pixels, **profile)
    return [folder / name for name in kinds]


def corrupted(data: bytes, rng: np.random.Generator) -> bytes:
    """Change some bytes, in the header or anywhere; cut off one file in ten."""
    spoilt = bytearray(data)
    reach = min(len(spoilt), 400) if rng.random() < 0.7 else len(spoilt)
    for place in rng.integers(0, reach, rng.integers(1, 12)):
        spoilt[place] = rng.integers(0, 256)
    return bytes(spoilt[: rng.integers(0, len(spoilt))] if rng.random() < 0.1 else spoilt)


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_corrupted_rasters_are_read_or_refused(tmp_path: Path) -> None:
    """220 files, read as image, as mask and for conversion: each is a UserError or a success."""
    rng = np.random.default_rng(5)
    whole = whole_rasters(tmp_path)
    outcomes = {"refused": 0, "read": 0}
    for path in whole * 20:
        spoilt = tmp_path / f"spoilt{path.suffix}"
        spoilt.write_bytes(corrupted(path.read_bytes(), rng))
        inspect_tile(TilePair("a", "", spoilt, tmp_path / "mask.tif"))
        inspect_tile(TilePair("a", "", tmp_path / "strips.tif", spoilt))
        try:
            source = read_image_header(spoilt)
            scale = None if source.dtype == "uint8" else find_scale([spoilt])
            write_rgb(spoilt, tmp_path / "out.tif", scale)
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1
        for left in ("out.tif", f"{spoilt.name}.aux.xml"):
            (tmp_path / left).unlink(missing_ok=True)
    assert min(outcomes.values()) > 20, outcomes  # some files survive and some do not
