from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from raster_files import name_bands, write_turned
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from tiny_dataset import CRS, TRANSFORM, write_raster

from roofseg.core.errors import UserError
from roofseg.tiles.grid import read_grid
from roofseg.tiles.rasters import open_raster
from roofseg.tiles.tile import TilePair, check_tile, read_tile_mask, read_tile_window

IMAGE = np.full((48, 64, 3), 90, np.uint8)
MASK = np.zeros((48, 64), np.uint8)
GEO = {"crs": CRS, "transform": TRANSFORM}


def pair(folder: Path, image: Path | None = None, mask: Path | None = None) -> TilePair:
    return TilePair("t", "train", image or folder / "t.tif", mask or folder / "t_mask.tif")


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
        ("crs", "pixel", "corner", "gsd"),
        [
            ("EPSG:2277", 1.0, (3.1e6, 1.008e7), 0.304800610),
            ("EPSG:4326", 1e-5, (30, 60), 0.788),
            ("EPSG:3857", 0.6, (3339584.7, 8399737.9), 0.301),
            (None, 0.3, (30, 60), None),
        ],
        ids=["survey feet", "degrees", "Web Mercator", "no CRS"],
    )
    def test_gsd_is_in_metres_or_unknown(
        self,
        tmp_path: Path,
        crs: str | None,
        pixel: float,
        corner: tuple[float, float],
        gsd: float | None,
    ) -> None:
        geo = {"crs": crs, "transform": Affine(pixel, 0, corner[0], 0, -pixel, corner[1])}
        write_raster(tmp_path / "t.tif", IMAGE, **geo)
        write_raster(tmp_path / "t_mask.tif", MASK, **geo)
        with open_raster(tmp_path / "t.tif") as source:
            assert read_grid(source).gsd == (gsd and pytest.approx(gsd))

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

    @pytest.mark.parametrize(
        ("shape", "says"),
        [
            (Affine.scale(1, 2), "are 0.3 x 0.6 m; expected square ones. Warp it and its mask"),
            (Affine.rotation(20) @ Affine.scale(2, 1), "are 0.6 x 0.3 m; expected square ones"),
            (Affine.shear(20), "are sheared (rows and columns not at right angles); expected"),
        ],
    )
    def test_pixels_that_are_not_square(self, tmp_path: Path, shape: Affine, says: str) -> None:
        geo = {"crs": CRS, "transform": TRANSFORM @ shape}
        write_raster(tmp_path / "t.tif", IMAGE, **geo)
        write_raster(tmp_path / "t_mask.tif", MASK, **geo)
        with pytest.raises(UserError, match=re.escape(f"t.tif: its pixels {says}")):
            check_tile(pair(tmp_path), 32)

    def test_pixels_in_degrees_are_judged_on_the_ground(self, tmp_path: Path) -> None:
        for wide, says in ((1, r"its pixels are 0\.0557\d* x 0\.111\d* m"), (2, "")):
            geo = {"crs": "EPSG:4326", "transform": Affine(wide * 1e-6, 0, 10, 0, -1e-6, 60)}
            write_raster(tmp_path / "t.tif", IMAGE, **geo)
            write_raster(tmp_path / "t_mask.tif", MASK, **geo)
            remedy = r"`gdalwarp -t_srs EPSG:CODE -tr 0\.0788 0\.0788` \(the code of its UTM zone\)"
            with pytest.raises(UserError, match=f"{says}.*{remedy}") if says else nullcontext():
                check_tile(pair(tmp_path), 32)

    @pytest.mark.parametrize("turned", ["t.jpg", "t_mask.tif"])
    def test_a_file_that_viewers_turn(self, tmp_path: Path, turned: str) -> None:
        write_raster(tmp_path / "t.jpg", IMAGE)
        write_raster(tmp_path / "t_mask.tif", MASK)
        write_turned(tmp_path / turned, IMAGE if turned == "t.jpg" else MASK, 3)
        with pytest.raises(UserError, match=f"{turned}: its orientation tag is 3, so viewers"):
            check_tile(pair(tmp_path, tmp_path / "t.jpg"), 32)

    def test_the_orientation_of_a_georeferenced_tile_does_not_count(self, tmp_path: Path) -> None:
        write_turned(tmp_path / "t.tif", IMAGE, 6)
        (tmp_path / "t.tfw").write_text("0.3\n0\n0\n-0.3\n621000.15\n3349999.85\n")
        write_raster(tmp_path / "t_mask.tif", MASK)
        assert check_tile(pair(tmp_path), 32)[0].transform is not None

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
