from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from raster_files import (
    add_rpcs,
    name_bands,
    write_bands_of_two_types,
    write_container,
    write_turned,
)
from rasterio.transform import Affine
from tiny_dataset import CRS, TRANSFORM, write_raster
from unwritable import full_disk

from roofseg.core.errors import UserError
from roofseg.intake import convert, inspect
from roofseg.intake.convert import find_scale, read_image_header, write_rgb
from roofseg.tiles.rasters import open_raster

GEO = {"crs": CRS, "transform": TRANSFORM}
RNG = np.random.default_rng(7)
RGB8 = RNG.integers(1, 256, (60, 80, 3)).astype(np.uint8)
RGB16 = RNG.integers(100, 4000, (60, 80, 3)).astype(np.uint16)


def read(path: Path) -> np.ndarray:
    with open_raster(path) as source:
        return source.read().transpose(1, 2, 0)


class TestHeader:
    @pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
    def test_8_bit_rgb_can_be_copied(self, tmp_path: Path, name: str) -> None:
        write_raster(tmp_path / name, RGB8)
        source = read_image_header(tmp_path / name)
        assert (source.as_is, source.dtype, source.notes) == (True, "uint8", ())

    def test_nodata_0_needs_no_conversion(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "a.tif", RGB8, nodata=0)
        assert read_image_header(tmp_path / "a.tif").as_is

    @pytest.mark.parametrize(
        ("pixels", "profile", "notes"),
        [
            (RGB16, {}, ("uint16, scaled to 8 bits",)),
            (RGB8, {"nodata": 255}, ("pixels without data (nodata 255) become black",)),
            (
                np.dstack([RGB8, RGB8[:, :, :2]]),
                {"photometric": "minisblack"},
                ("5 bands of uint8: bands 1, 2, 3 are read as red, green, blue (by position)",),
            ),
            (
                np.dstack([RGB8, RGB8[:, :, 0]]),
                {"photometric": "RGB", "alpha": "YES"},
                ("pixels without data (transparent in an alpha band) become black",),
            ),
        ],
        ids=["16-bit", "nodata", "5 bands", "alpha"],
    )
    def test_conversions_are_noted(
        self, tmp_path: Path, pixels: np.ndarray, profile: dict[str, object], notes: tuple[str, ...]
    ) -> None:
        write_raster(tmp_path / "a.tif", pixels, **profile)
        source = read_image_header(tmp_path / "a.tif")
        assert (source.as_is, source.notes) == (False, notes)

    def test_a_virtual_raster_is_written_out(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "a.tif", RGB8, **GEO)
        rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
        assert read_image_header(tmp_path / "a.vrt").notes == ("VRT, written as GeoTIFF",)
        write_rgb(tmp_path / "a.vrt", tmp_path / "out.tif", None)
        (tmp_path / "a.tif").unlink()
        np.testing.assert_array_equal(read(tmp_path / "out.tif"), RGB8)

    @pytest.mark.parametrize(
        ("pixels", "says"),
        [
            (RGB8[:, :, 0], "1 band of uint8; expected RGB. Name the imagery itself"),
            (RGB8[:, :, :2], "2 bands of uint8; expected RGB"),
        ],
    )
    def test_too_few_bands(self, tmp_path: Path, pixels: np.ndarray, says: str) -> None:
        write_raster(tmp_path / "a.tif", pixels)
        with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'a.tif'}: {says}")):
            read_image_header(tmp_path / "a.tif")

    def test_a_palette_is_refused(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "a.tif", RGB8[:, :, 0] % 4, **GEO)
        with rasterio.open(tmp_path / "a.tif", "r+") as target:
            target.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
        with pytest.raises(UserError, match=r"a\.tif: 1 band .* `gdal_translate -expand rgb`"):
            read_image_header(tmp_path / "a.tif")

    def test_bands_in_another_order_are_converted_to_rgb(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "a.tif", RGB8, **GEO)
        name_bands(tmp_path / "a.tif", "blue", "green", "red")
        header = read_image_header(tmp_path / "a.tif")
        assert not header.as_is
        assert header.notes == (
            "3 bands of uint8: bands 3, 2, 1 are read as red, green, blue (by colour "
            "interpretation)",
        )
        write_rgb(tmp_path / "a.tif", tmp_path / "out.tif", None)
        np.testing.assert_array_equal(read(tmp_path / "out.tif"), RGB8[:, :, ::-1])
        name_bands(tmp_path / "a.tif", "blue", "green", "nir")
        with pytest.raises(UserError, match=r"its bands are blue, green, nir; expected bands nam"):
            read_image_header(tmp_path / "a.tif")

    @pytest.mark.parametrize(
        ("crs", "found"),
        [
            (CRS, "0.3 x 0.6 m"),
            ("EPSG:2277", "0.0869741 x 0.173948 m"),
            ("EPSG:3857", "0.263015 x 0.523321 m"),
            (None, "0.3 x 0.6 units of its georeference"),
        ],
        ids=["metres", "feet, far from Texas", "Web Mercator", "no CRS"],
    )
    def test_oblong_pixels_are_refused_and_the_remedy_makes_them_square(
        self, tmp_path: Path, crs: str | None, found: str
    ) -> None:
        path = tmp_path / "a.tif"
        write_raster(path, RGB8, crs=crs, transform=TRANSFORM @ Affine.scale(1, 2))
        says = f"{path}: its pixels are {found}; expected square ones. "
        says += "Warp it and its mask" if crs else "State its CRS ("
        with pytest.raises(UserError, match=re.escape(says)) as caught:
            read_image_header(path)
        command = re.search(r"`gdalwarp -tr ([\d.]+) \1`", str(caught.value))
        assert command
        # gdalwarp keeps the area and gives pixels the sides that are told.
        square = TRANSFORM @ Affine.scale(float(command[1]) / 0.3)
        write_raster(path, RGB8, crs=crs, transform=square)
        assert read_image_header(path).as_is

    @pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
    def test_imagery_that_viewers_turn_is_refused(self, tmp_path: Path, name: str) -> None:
        write_turned(tmp_path / name, RGB8, 1)
        assert read_image_header(tmp_path / name).as_is
        for tag in range(2, 9):
            write_turned(tmp_path / name, RGB8, tag)
            with pytest.raises(UserError, match=rf"{name}: its orientation tag is {tag}, so view"):
                read_image_header(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            rasterio.shutil.copy(tmp_path / name, tmp_path / "new.tif", driver="GTiff")
        assert read_image_header(tmp_path / "new.tif").as_is  # the second remedy

    @pytest.mark.parametrize("pixels", [RGB8, RGB16])
    def test_unused_rpcs_are_noted(self, tmp_path: Path, pixels: np.ndarray) -> None:
        write_raster(tmp_path / "a.tif", pixels)
        add_rpcs(tmp_path / "a.tif")
        assert "its RPCs" in read_image_header(tmp_path / "a.tif").notes[-1]

    def test_several_rasters_in_a_file_are_named(self, tmp_path: Path) -> None:
        write_container(tmp_path / "a.gpkg", {"x": RGB8, "y": RGB8})
        with pytest.raises(UserError, match=r"a\.gpkg: holds 2 rasters; .* GPKG:.*a\.gpkg:y\.$"):
            read_image_header(tmp_path / "a.gpkg")

    def test_bands_of_two_types_are_refused(self, tmp_path: Path) -> None:
        write_bands_of_two_types(tmp_path / "c.vrt")
        with pytest.raises(UserError, match=r"3 bands of uint16, uint8; expected .* of one type"):
            read_image_header(tmp_path / "c.vrt")


class TestFindScale:
    def test_percentiles_of_all_tiles_and_bands_together(self, tmp_path: Path) -> None:
        names = [tmp_path / "a.tif", tmp_path / "b.tif"]
        write_raster(names[0], RGB16)
        write_raster(names[1], RGB16 * 2)
        low, high = find_scale(names)
        expected = np.percentile(np.concatenate([RGB16, RGB16 * 2]), [2, 98])
        np.testing.assert_allclose((low, high), expected)
        assert find_scale(names[::-1]) == (low, high)

    def test_pixels_without_data_do_not_count(self, tmp_path: Path) -> None:
        pixels = RGB16.astype(np.float32)
        expected = find_scale_of(tmp_path / "a.tif", pixels[30:])
        pixels[:10], pixels[10:20], pixels[20:30] = np.nan, -9999, np.inf
        assert find_scale_of(tmp_path / "b.tif", pixels, nodata=-9999) == expected

    def test_named_bands_are_sampled_wherever_they_stand(self, tmp_path: Path) -> None:
        expected = find_scale_of(tmp_path / "a.tif", RGB16[10:])
        alpha = np.full((60, 80), 1000, np.uint16)
        alpha[:10] = 0
        pixels = np.dstack([alpha, RGB16 * 0, RGB16[:, :, ::-1]])
        write_raster(tmp_path / "b.tif", pixels, photometric="minisblack")
        names = ("alpha", "nir", "undefined", "undefined", "blue", "green", "red")
        name_bands(tmp_path / "b.tif", *names)
        assert find_scale([tmp_path / "b.tif"]) == expected

    def test_a_sample_of_pixels_is_enough(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = find_scale_of(tmp_path / "a.tif", RGB16)
        monkeypatch.setattr(convert, "SAMPLED", 600)
        sampled = find_scale([tmp_path / "a.tif"])
        assert sampled != whole
        np.testing.assert_allclose(sampled, whole, atol=80)

    def test_the_sample_is_shared_by_all_tiles(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(convert, "SAMPLED", 600)
        alone = find_scale_of(tmp_path / "a.tif", RGB16)
        monkeypatch.setattr(convert, "SAMPLED", 1200)
        # The same pixels twice give the same percentiles, apart from interpolation.
        np.testing.assert_allclose(find_scale([tmp_path / "a.tif"] * 2), alone, atol=3)

    def test_reading_in_parts_gives_the_same_scale(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(convert, "SAMPLED", 600)
        write_raster(tmp_path / "a.tif", RGB16, tiled=True, blockxsize=16, blockysize=32)
        whole = find_scale([tmp_path / "a.tif"])
        monkeypatch.setattr(inspect, "PART_BYTES", 5000)
        assert find_scale([tmp_path / "a.tif"]) == whole

    @pytest.mark.parametrize(
        "pixels", [np.full((20, 20, 3), 7, np.uint16), np.full((20, 20, 3), np.nan, np.float32)]
    )
    def test_values_that_cannot_be_scaled(self, tmp_path: Path, pixels: np.ndarray) -> None:
        with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}: cannot be scaled"):
            find_scale_of(tmp_path / "a.tif", pixels)


def find_scale_of(path: Path, pixels: np.ndarray, **profile: object) -> tuple[float, float]:
    write_raster(path, pixels, **profile)
    return find_scale([path])


class TestWriteRgb:
    def test_low_becomes_0_and_high_255(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "a.tif", RGB16, **GEO)
        write_rgb(tmp_path / "a.tif", tmp_path / "out.tif", (500, 3050))
        expected = np.rint(((RGB16.astype(float) - 500) / 10).clip(0, 255))
        np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected)
        with rasterio.open(tmp_path / "out.tif") as source:
            assert source.crs.to_string() == CRS
            assert source.transform == TRANSFORM
            assert set(source.dtypes) == {"uint8"}
            assert source.nodata is None

    @pytest.mark.parametrize("bands", [4, 5])
    def test_the_first_three_of_unnamed_bands_are_written(self, tmp_path: Path, bands: int) -> None:
        pixels = RNG.integers(0, 256, (60, 80, bands)).astype(np.uint8)
        write_raster(tmp_path / "a.tif", pixels, photometric="minisblack")
        write_rgb(tmp_path / "a.tif", tmp_path / "out.tif", None)
        np.testing.assert_array_equal(read(tmp_path / "out.tif"), pixels[:, :, :3])

    def test_pixels_without_data_become_black(self, tmp_path: Path) -> None:
        pixels = RGB16.astype(np.float32)
        pixels[:10], pixels[10:20, :, 1] = -9999, np.nan
        write_raster(tmp_path / "a.tif", pixels, nodata=-9999)
        write_rgb(tmp_path / "a.tif", tmp_path / "out.tif", (-10_000, 4000))
        out = read(tmp_path / "out.tif")
        assert not out[:20].any()
        assert out[20:].all()

    def test_transparent_pixels_become_black(self, tmp_path: Path) -> None:
        alpha = np.zeros((60, 80), np.uint8)
        alpha[:, 40:] = 1
        write_raster(tmp_path / "a.tif", np.dstack([RGB8, alpha]), photometric="RGB", alpha="YES")
        write_rgb(tmp_path / "a.tif", tmp_path / "out.tif", None)
        np.testing.assert_array_equal(read(tmp_path / "out.tif"), RGB8 * (alpha > 0)[:, :, None])

    def test_writing_in_parts_gives_the_whole_image(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(convert, "BLOCK", 64)
        monkeypatch.setattr(inspect, "PART_BYTES", 2 * 3 * 8 * 64 * 64)
        pixels = RNG.integers(0, 256, (150, 333, 3)).astype(np.uint8)
        write_raster(tmp_path / "a.tif", pixels)
        write_rgb(tmp_path / "a.tif", tmp_path / "out.tif", None)
        np.testing.assert_array_equal(read(tmp_path / "out.tif"), pixels)

    def test_imagery_without_georeference_gets_none(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "a.png", RGB16)
        write_rgb(tmp_path / "a.png", tmp_path / "out.tif", (0, 4000))
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
            source = rasterio.open(tmp_path / "out.tif")
        assert (source.crs, source.transform) == (None, Affine.identity())
        source.close()

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "a.tif", RGB16 % 2, compress="deflate")
        data = bytearray((tmp_path / "a.tif").read_bytes())
        data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
        (tmp_path / "a.tif").write_bytes(data)
        with pytest.raises(UserError, match=r"a\.tif: cannot be read"):
            write_rgb(tmp_path / "a.tif", tmp_path / "out.tif", (0, 4000))

    @pytest.mark.parametrize("room", [10, 0.5, 0.9, 0.99, 0.999])
    def test_a_full_disk_is_noticed(self, tmp_path: Path, room: float) -> None:
        """Wherever the disk is full: GDAL loses the last bytes only when it closes the file."""
        write_raster(tmp_path / "a.tif", RNG.integers(0, 256, (300, 400, 3)).astype(np.uint8))
        write_rgb(tmp_path / "a.tif", tmp_path / "whole.tif", None)
        size = (tmp_path / "whole.tif").stat().st_size
        with (
            full_disk(int(room if room > 1 else room * size)),
            pytest.raises(OSError, match=r"cannot be written; GDAL says: .*out\.tif"),
        ):
            write_rgb(tmp_path / "a.tif", tmp_path / "out.tif", None)
