from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from raster_files import name_bands
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from tiny_dataset import CRS, TRANSFORM, write_dataset, write_raster

from roofseg.core.errors import UserError
from roofseg.cutting.find import find_tiles
from roofseg.recipe.split import read_nudges, read_split
from roofseg.tiles.rasters import TilePair, check_tile, read_tile_mask, read_tile_window

SPLIT = {"b": "train", "a": "train", "c": "val", "d": "test"}
IMAGE = np.full((48, 64, 3), 90, np.uint8)
MASK = np.zeros((48, 64), np.uint8)
GEO = {"crs": CRS, "transform": TRANSFORM}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data" / "mine", SPLIT, size=32)


def pair(folder: Path, image: Path | None = None, mask: Path | None = None) -> TilePair:
    return TilePair("t", "train", image or folder / "t.tif", mask or folder / "t_mask.tif")


class TestTables:
    def test_split_and_nudges_are_read(self, dataset: Path) -> None:
        (dataset / "nudges.csv").write_text("tile,row,col\na,0,12\n")
        assert read_split(dataset) == SPLIT
        assert read_nudges(dataset) == {"a": (0, 12)}

    def test_tables_saved_by_spreadsheets_are_accepted(self, dataset: Path) -> None:
        text = "\ufefftile, split ,note\r\na , train,x\r\n\r\n007,val,\r\nNA,test,\r\n"
        (dataset / "split.csv").write_bytes(text.replace(" split ", "split").encode())
        assert read_split(dataset) == {"a": "train", "007": "val", "NA": "test"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("tile,set\na,train\n", "lacks split; expected `tile,split`"),
            ("", "lacks tile, split"),
            ("tile,split\na\n", "line 2: a value is missing"),
            ("tile,split\na,training\n", "line 2: tile a is in the split 'training'; expected one"),
            ("tile,split\na,train\nb,val\na,test\n", "line 4: tile a is listed in train and in te"),
            ("tile,split\na,train\na,train\n", "line 3: tile a is listed twice"),
            ("tile,split\na,train\nb,test\n", "no tile is in the split val"),
            ("tile,split\n", "no tile is in the split train"),
            ('tile,split\n"a,train\n', "not a CSV"),
        ],
    )
    def test_a_broken_split_names_file_and_line(
        self, dataset: Path, text: str, message: str
    ) -> None:
        (dataset / "split.csv").write_text(text)
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            read_split(dataset)
        assert str(dataset / "split.csv") in str(caught.value)

    def test_a_table_in_another_encoding_is_an_error(self, dataset: Path) -> None:
        (dataset / "split.csv").write_bytes("tile,split\nmünchen,train\n".encode("latin-1"))
        with pytest.raises(UserError, match="not a CSV file in UTF-8"):
            read_split(dataset)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("tile,row\na,1\n", "lacks col"),
            ("tile,row,col\na,1,x\n", "line 2: tile a has row '1' and col 'x'"),
            ("tile,row,col\na,-1,2\n", "row '-1'"),
            ("tile,row,col\na,1.5,2\n", "whole numbers"),
            ("tile,row,col\na,1,2\na,1,2\n", "line 3: tile a is listed twice"),
        ],
    )
    def test_broken_nudges_name_file_and_line(self, dataset: Path, text: str, message: str) -> None:
        (dataset / "nudges.csv").write_text(text)
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            read_nudges(dataset)
        assert str(dataset / "nudges.csv") in str(caught.value)

    def test_the_remedy_for_missing_nudges_works_as_printed(self, tmp_path: Path) -> None:
        folder = write_dataset(tmp_path / "with space", SPLIT, size=32)
        (folder / "nudges.csv").unlink()
        with pytest.raises(UserError, match=r"nudges\.csv: no such file") as caught:
            read_nudges(folder)
        command = str(caught.value).split("`")[1]
        subprocess.run(["sh", "-c", command], check=True)
        assert read_nudges(folder) == {}

    def test_missing_split_and_missing_dataset(self, dataset: Path, tmp_path: Path) -> None:
        (dataset / "split.csv").unlink()
        with pytest.raises(UserError, match=r"split\.csv: no such file.*printf"):
            read_split(dataset)
        with pytest.raises(UserError, match="nowhere: no such folder"):
            read_split(tmp_path / "nowhere")


class TestFindTiles:
    def test_order_and_paths(self, dataset: Path) -> None:
        tiles, _ = find_tiles(dataset)
        assert [(tile.name, tile.split) for tile in tiles] == [
            ("a", "train"),
            ("b", "train"),
            ("c", "val"),
            ("d", "test"),
        ]
        assert tiles[0].image == dataset / "imgs" / "a.tif"
        assert tiles[0].mask == dataset / "msks" / "a.tif"

    def test_sidecars_hidden_files_and_folders_are_not_tiles(self, dataset: Path) -> None:
        for name in ("a.tif.aux.xml", "a.TFW", "a.tif.ovr", ".gitignore", ".DS_Store", "z.txt"):
            (dataset / "imgs" / name).touch()
        (dataset / "imgs" / "old").mkdir()
        tiles, unlisted = find_tiles(dataset)
        assert (len(tiles), unlisted) == (4, [])

    def test_unlisted_tiles_are_named_and_left_out(self, dataset: Path) -> None:
        for name in ("imgs/z.tif", "msks/z.tif", "imgs/extra.v2.png", "msks/only_mask.png"):
            (dataset / name).touch()
        tiles, unlisted = find_tiles(dataset)
        assert (len(tiles), unlisted) == (4, ["extra.v2", "only_mask", "z"])

    @pytest.mark.parametrize("kind", ["imgs", "msks"])
    def test_a_tile_without_image_or_mask(self, dataset: Path, kind: str) -> None:
        (dataset / kind / "c.tif").unlink()
        with pytest.raises(UserError, match=rf"{kind}: no file for c, which .*split\.csv lists"):
            find_tiles(dataset)

    @pytest.mark.parametrize("kind", ["imgs", "msks"])
    def test_two_files_for_a_tile(self, dataset: Path, kind: str) -> None:
        (dataset / kind / "c.png").touch()
        with pytest.raises(UserError, match=rf"{kind}/c\.tif: c\.png in the same folder"):
            find_tiles(dataset)

    def test_a_missing_folder(self, dataset: Path) -> None:
        (dataset / "msks").rename(dataset / "labels")
        with pytest.raises(UserError, match="msks: no such folder"):
            find_tiles(dataset)


class TestCheckTile:
    def test_a_georeferenced_tile(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", IMAGE, **GEO)
        write_raster(tmp_path / "t_mask.tif", MASK, **GEO)
        grid, _ = check_tile(pair(tmp_path), 48)
        assert (grid.height, grid.width, grid.transform) == (48, 64, TRANSFORM)
        assert grid.crs is not None
        assert grid.crs.to_string() == CRS
        assert grid.gsd == 0.3

    @pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
    def test_a_tile_without_georeference_is_allowed(self, tmp_path: Path, suffix: str) -> None:
        image, mask = tmp_path / f"t{suffix}", tmp_path / "mask.png"
        write_raster(image, IMAGE)
        write_raster(mask, MASK)
        grid, _ = check_tile(pair(tmp_path, image, mask), 32)
        assert (grid.height, grid.width, grid.crs, grid.transform) == (48, 64, None, None)
        assert grid.gsd is None

    @pytest.mark.parametrize("plain", ["t.tif", "t_mask.tif"])
    def test_georeferencing_of_one_of_the_two_counts(self, tmp_path: Path, plain: str) -> None:
        for name, pixels in (("t.tif", IMAGE), ("t_mask.tif", MASK)):
            write_raster(tmp_path / name, pixels, **({} if name == plain else GEO))
        grid, _ = check_tile(pair(tmp_path), 32)
        assert grid.transform == TRANSFORM
        assert grid.gsd == 0.3

    @pytest.mark.parametrize(
        ("crs", "pixel", "gsd"),
        [
            ("EPSG:2277", 1.0, 0.304800610),
            ("EPSG:4326", 1e-5, None),
            ("EPSG:3857", 0.3, None),
            (None, 0.3, None),
        ],
        ids=["survey feet", "degrees", "Web Mercator", "no CRS"],
    )
    def test_gsd_is_in_metres_or_unknown(
        self, tmp_path: Path, crs: str | None, pixel: float, gsd: float | None
    ) -> None:
        geo = {"crs": crs, "transform": Affine(pixel, 0, 30, 0, -pixel, 60)}
        write_raster(tmp_path / "t.tif", IMAGE, **geo)
        write_raster(tmp_path / "t_mask.tif", MASK, **geo)
        assert check_tile(pair(tmp_path), 32)[0].gsd == (gsd and pytest.approx(gsd))

    @pytest.mark.parametrize(
        ("pixels", "found"),
        [
            (IMAGE[:, :, 0], "1 band of uint8"),
            (np.dstack([IMAGE, MASK]), "4 bands of uint8"),
            (IMAGE.astype(np.uint16), "3 bands of uint16"),
            (IMAGE.astype(np.float32), "3 bands of float32"),
        ],
    )
    def test_an_image_that_is_not_8_bit_rgb(
        self, tmp_path: Path, pixels: np.ndarray, found: str
    ) -> None:
        write_raster(tmp_path / "t.tif", pixels)
        write_raster(tmp_path / "t_mask.tif", MASK)
        with pytest.raises(UserError, match=rf"t\.tif: {found}; expected 8-bit RGB"):
            check_tile(pair(tmp_path), 32)

    def test_bands_in_another_order_are_read_as_rgb(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(6).integers(0, 256, (48, 64, 3)).astype(np.uint8)
        write_raster(tmp_path / "t.tif", pixels, photometric="minisblack")
        write_raster(tmp_path / "t_mask.tif", MASK)
        name_bands(tmp_path / "t.tif", "blue", "green", "red")
        check_tile(pair(tmp_path), 32)
        window = read_tile_window(tmp_path / "t.tif", 3, 5, 32)
        np.testing.assert_array_equal(window, pixels[3:35, 5:37, ::-1])
        name_bands(tmp_path / "t.tif", "nir", "red", "green")
        with pytest.raises(UserError, match=r"t\.tif: its bands are nir, red, green; expected"):
            check_tile(pair(tmp_path), 32)

    def test_a_mask_with_three_bands(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", IMAGE)
        write_raster(tmp_path / "t_mask.tif", IMAGE)
        with pytest.raises(UserError, match=r"t_mask\.tif: 3 bands of uint8; .* one band"):
            check_tile(pair(tmp_path), 32)

    def test_sizes_that_differ(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", IMAGE)
        write_raster(tmp_path / "t_mask.tif", MASK.T)
        with pytest.raises(UserError, match=r"t_mask\.tif: 48 x 64 px, .*t\.tif has 64 x 48"):
            check_tile(pair(tmp_path), 32)

    def test_a_tile_smaller_than_a_patch(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", IMAGE)
        write_raster(tmp_path / "t_mask.tif", MASK)
        with pytest.raises(UserError, match=r"t\.tif: 64 x 48 px, smaller than a patch of 64"):
            check_tile(pair(tmp_path), 64)

    @pytest.mark.parametrize(
        ("transform", "shift"),
        [
            (TRANSFORM @ Affine.translation(1, 0), "1 px"),
            (TRANSFORM @ Affine.scale(1.01), "0.792 px"),
            (TRANSFORM @ Affine.translation(0, 48) @ Affine.scale(1, -1), "48 px"),
            (Affine(0.3, 0, 1, 0, 0, 1), "inf px"),
        ],
        ids=["moved", "scaled", "upside down", "degenerate"],
    )
    def test_transforms_that_differ(self, tmp_path: Path, transform: Affine, shift: str) -> None:
        write_raster(tmp_path / "t.tif", IMAGE, **GEO)
        write_raster(tmp_path / "t_mask.tif", MASK, crs=CRS, transform=transform)
        with pytest.raises(UserError, match=rf"t_mask\.tif: georeferenced {shift} away from"):
            check_tile(pair(tmp_path), 32)

    def test_a_transform_rounded_by_a_format_is_the_same(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", IMAGE, **GEO)
        rounded = TRANSFORM @ Affine.translation(0.001, 0)
        write_raster(tmp_path / "t_mask.tif", MASK, crs=CRS, transform=rounded)
        assert check_tile(pair(tmp_path), 32)[0].transform == TRANSFORM

    def test_crs_that_differ(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", IMAGE, **GEO)
        write_raster(tmp_path / "t_mask.tif", MASK, crs="EPSG:32615", transform=TRANSFORM)
        with pytest.raises(UserError, match=r"CRS is EPSG:32615, .* has EPSG:32614"):
            check_tile(pair(tmp_path), 32)


class TestReadMask:
    @pytest.mark.parametrize("building", [1, 255])
    @pytest.mark.parametrize("suffix", [".tif", ".png"])
    def test_either_value_of_building(self, tmp_path: Path, building: int, suffix: str) -> None:
        truth = np.random.default_rng(1).integers(0, 2, (700, 40)).astype(np.uint8)
        truth[:300] = 0  # the first strip holds background alone
        path = tmp_path / f"mask{suffix}"
        write_raster(path, truth * np.uint8(building))
        mask = read_tile_mask(path)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, truth)

    @pytest.mark.parametrize("value", [0, 1, 255])
    def test_a_mask_of_one_value_is_allowed(self, tmp_path: Path, value: int) -> None:
        write_raster(tmp_path / "mask.png", np.full((40, 50), value, np.uint8))
        assert np.unique(read_tile_mask(tmp_path / "mask.png")).tolist() == [min(value, 1)]

    @pytest.mark.parametrize("dtype", [np.uint16, np.float32])
    def test_masks_may_have_wider_types(self, tmp_path: Path, dtype: type) -> None:
        write_raster(tmp_path / "mask.tif", np.eye(40, dtype=dtype))
        np.testing.assert_array_equal(read_tile_mask(tmp_path / "mask.tif"), np.eye(40))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({(0, 0): 7}, "rows 0 to 255 hold the values 0, 7;"),
            ({(0, 0): 1, (0, 1): 255}, "rows 0 to 255 hold the values 0, 1, 255;"),
            ({(0, 0): 1, (600, 9): 255}, "rows 512 to 699 hold the values 0, 1, 255;"),
            ({(0, 0): 255, (600, 9): 1}, "rows 512 to 699 hold the values 0, 1, 255;"),
            ({(0, i): i for i in range(1, 9)}, "hold the values 0, 1, 2, 3, 4, 5, ...;"),
        ],
    )
    def test_other_mask_values_are_an_error(
        self, tmp_path: Path, changes: dict[tuple[int, int], int], message: str
    ) -> None:
        pixels = np.zeros((700, 10), np.uint8)
        for place, value in changes.items():
            pixels[place] = value
        write_raster(tmp_path / "mask.png", pixels)
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            read_tile_mask(tmp_path / "mask.png")
        assert str(tmp_path / "mask.png") in str(caught.value)

    def test_nan_in_a_mask_is_an_error(self, tmp_path: Path) -> None:
        pixels = np.zeros((8, 8), np.float32)
        pixels[3, 3] = np.nan
        write_raster(tmp_path / "mask.tif", pixels)
        with pytest.raises(UserError, match="values 0, nan"):
            read_tile_mask(tmp_path / "mask.tif")


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_a_window_has_the_pixels_of_the_whole_image(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    path = tmp_path / f"tile{suffix}"
    write_raster(path, pixels, **GEO)  # elsewhere than .tif, georeferencing is a sidecar
    with rasterio.open(path) as source:
        whole = source.read().transpose(1, 2, 0)
    window = read_tile_window(path, 30, 50, 32)
    assert window.shape == (32, 32, 3)
    np.testing.assert_array_equal(window, whole[30:62, 50:82])


BROKEN = {"empty": 0.0, "header": 0.002, "half": 0.5, "last bytes": 0.999}


@pytest.mark.parametrize("share", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("name", ["t.tif", "tiled.tif", "t.png", "t.jpg"])
def test_a_truncated_image_is_noticed(tmp_path: Path, name: str, share: float) -> None:
    path, mask = tmp_path / name, tmp_path / "mask.png"
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64} if name == "tiled.tif" else {}
    noise = np.random.default_rng(3).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    write_raster(path, noise, **tiled)
    write_raster(mask, noise[:, :, 0] // 128)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    def read() -> None:
        check_tile(pair(tmp_path, path, mask), 32)
        read_tile_window(path, 0, 0, 32)  # far from the end

    with pytest.raises(UserError, match=f"{re.escape(str(path))}: cannot be read"):
        read()


@pytest.mark.parametrize("share", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("name", ["t.tif", "t.png"])
def test_a_truncated_mask_is_noticed(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    write_raster(path, np.random.default_rng(4).integers(0, 2, (300, 300)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match=f"{re.escape(str(path))}: cannot be read"):
        read_tile_mask(path)


def test_a_crs_with_an_undecodable_name_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.tif"
    crs = "+proj=tmerc +lon_0=2 +datum=WGS84"
    write_raster(path, IMAGE, crs=crs, transform=TRANSFORM)
    write_raster(tmp_path / "t_mask.tif", MASK)
    path.write_bytes(path.read_bytes().replace(b"unknown", b"\xffnknown"))
    with pytest.raises(UserError, match=r"t\.tif: cannot be read; .*damaged.* codec can't decode"):
        check_tile(pair(tmp_path), 32)


def test_a_mask_damaged_in_its_middle_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    noise = np.random.default_rng(5).integers(0, 2, (300, 300)).astype(np.uint8)
    write_raster(path, noise, compress="deflate")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read"):
        read_tile_mask(path)


class TestPrivateNames:
    def test_rasterio_raises_errors_that_have_no_public_name(self, tmp_path: Path) -> None:
        """Once this fails, `roofseg.tiles.rasters` no longer needs rasterio._err."""
        write_raster(tmp_path / "a.tif", MASK, **GEO)
        with pytest.raises(CPLE_BaseError) as caught:
            rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "nowhere" / "b.tif", driver="COG")
        assert not isinstance(caught.value, RasterioError)
