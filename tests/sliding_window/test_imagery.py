from __future__ import annotations

import os
import re
import socket
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from ranges import served
from raster_files import (
    add_mask,
    add_mask_per_band,
    add_rpcs,
    name_bands,
    write_bands_of_two_types,
    write_container,
    write_turned,
)
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.warp import reproject
from tiny_dataset import CRS, TRANSFORM, write_raster
from unwritable import nobody, public_folder
from web_tiles import tile_at, tile_transform

from roofseg.core.errors import UserError
from roofseg.sliding_window import imagery as reading
from roofseg.sliding_window.imagery import (
    Imagery,
    file_name,
    list_inputs,
    open_imagery,
    output_stem,
)

GEO = {"crs": CRS, "transform": TRANSFORM}
RGB = np.random.default_rng(0).integers(1, 255, (40, 60, 3)).astype(np.uint8)


def whole(imagery: Imagery) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    return imagery.read(0, imagery.height, 0, imagery.width)


def refused(path: Path | str, message: str, *trained: float, **options: Any) -> None:
    """Assert that a raster is refused when it is opened or read."""
    with (
        pytest.raises(UserError, match=message),
        open_imagery(str(path), trained, **options) as imagery,
    ):
        whole(imagery)


def with_alpha(path: Path, alpha: npt.NDArray[np.uint8], **profile: Any) -> None:
    write_raster(path, np.dstack([RGB, alpha]), **GEO, **profile)
    name_bands(path, "red", "green", "blue", "alpha")


class TestPixels:
    @pytest.mark.parametrize("suffix", [".tif", ".png"])
    def test_rgb_is_read_as_it_is(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"with space ü{suffix}"
        write_raster(path, RGB)
        with open_imagery(str(path)) as imagery:
            assert (imagery.height, imagery.width, imagery.crs, imagery.gsd) == (40, 60, None, None)
            assert imagery.transform == Affine.identity()
            assert imagery.notes == []
            image, valid = imagery.read(3, 20, 7, 31)
        np.testing.assert_array_equal(image, RGB[3:23, 7:38])
        assert valid.shape == (20, 31)
        assert valid.all()

    def test_a_world_file_beside_a_png_counts(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.png", RGB)
        (tmp_path / "t.pgw").write_text("0.3\n0\n0\n-0.3\n621000.15\n3349999.85\n")
        with open_imagery(str(tmp_path / "t.png")) as imagery:
            assert imagery.transform.almost_equals(TRANSFORM)

    def test_the_grid_is_read_from_the_file(self, tmp_path: Path) -> None:
        turned = TRANSFORM @ Affine.rotation(30)
        write_raster(tmp_path / "t.tif", RGB, crs=CRS, transform=turned)
        with open_imagery(str(tmp_path / "t.tif"), (0.3,)) as imagery:
            assert imagery.crs == CRS
            assert imagery.transform.almost_equals(turned)
            assert imagery.gsd == pytest.approx(0.3)

    def test_pixels_of_nodata_are_black_and_not_valid(self, tmp_path: Path) -> None:
        pixels = RGB.copy()
        pixels[:5] = 255
        pixels[7, 7, 1:] = 255  # the first band has data, so the pixel is valid
        write_raster(tmp_path / "t.tif", pixels, nodata=255, **GEO)
        with open_imagery(str(tmp_path / "t.tif")) as imagery:
            image, valid = whole(imagery)
        assert not valid[:5].any()
        assert valid[5:].all()
        assert (image[:5] == 0).all()
        np.testing.assert_array_equal(image[5:], pixels[5:])

    def test_transparent_pixels_are_not_valid(self, tmp_path: Path) -> None:
        alpha = np.full((40, 60), 255, np.uint8)
        alpha[:, :9] = 0
        with_alpha(tmp_path / "t.tif", alpha)
        with open_imagery(str(tmp_path / "t.tif")) as imagery:
            assert imagery.notes == []
            image, valid = whole(imagery)
        np.testing.assert_array_equal(valid, alpha > 0)
        np.testing.assert_array_equal(image[:, 9:], RGB[:, 9:])

    def test_the_first_three_of_five_unnamed_bands_are_read_and_a_note_says_so(
        self, tmp_path: Path
    ) -> None:
        write_raster(tmp_path / "t.tif", np.dstack([RGB, RGB[:, :, :2]]), photometric="minisblack")
        with open_imagery(str(tmp_path / "t.tif")) as imagery:
            np.testing.assert_array_equal(whole(imagery)[0], RGB)
            assert imagery.notes == [
                "5 bands of uint8: bands 1, 2, 3 are read as red, green, blue (by position)"
            ]

    @given(
        order=st.permutations(["red", "green", "blue", "alpha", "nir"]),
        left_out=st.sets(st.sampled_from(["alpha", "nir"])),
        factor=st.sampled_from([1, 2]),
    )
    def test_named_bands_are_read_in_any_order_and_alpha_is_no_data(
        self, order: list[str], left_out: set[str], factor: int
    ) -> None:
        """With and without resampling."""
        names = [name for name in order if name not in left_out]
        alpha = np.full((40, 60), 255, np.uint8)
        alpha[:, :20] = 0
        bands = dict(zip(["red", "green", "blue"], RGB.transpose(2, 0, 1), strict=True))
        bands |= {"alpha": alpha, "nir": RGB[:, :, 0] // 2}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.tif"
            pixels = np.dstack([bands[name] for name in names])
            write_raster(path, pixels, photometric="minisblack", **GEO)
            name_bands(path, *names)
            resample = {"resample": True} if factor == 2 else {}
            with open_imagery(str(path), (0.3 * factor,), **resample) as imagery:
                image, valid = whole(imagery)
        expected = np.ones((40, 60), bool) if "alpha" in left_out else alpha > 0
        np.testing.assert_array_equal(valid, expected[::factor, ::factor])
        means = RGB.reshape(40 // factor, factor, 60 // factor, factor, 3).mean((1, 3))
        assert np.abs(image - means)[valid].max() <= 0.5
        numbers = ", ".join(str(names.index(name) + 1) for name in ("red", "green", "blue"))
        says = f"bands {numbers} are read as red, green, blue (by colour interpretation)"
        quiet = numbers == "1, 2, 3" and "nir" in left_out
        assert any(says in note for note in imagery.notes) == (not quiet)

    def test_alpha_before_unnamed_bands_is_no_data(self, tmp_path: Path) -> None:
        alpha = np.full((40, 60), 255, np.uint8)
        alpha[:7] = 0
        write_raster(tmp_path / "t.tif", np.dstack([alpha, RGB]), photometric="minisblack")
        name_bands(tmp_path / "t.tif", "alpha", "undefined", "undefined", "undefined")
        with open_imagery(str(tmp_path / "t.tif")) as imagery:
            image, valid = whole(imagery)
        np.testing.assert_array_equal(valid, alpha > 0)
        np.testing.assert_array_equal(image[7:], RGB[7:])

    @pytest.mark.parametrize(
        "names",
        [
            ("nir", "red", "green"),
            ("blue", "green", "undefined"),
            ("cyan", "magenta", "yellow", "black"),
            ("undefined", "undefined", "red", "alpha"),
        ],
    )
    def test_other_colours_are_refused(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        pixels = np.dstack([RGB[:, :, 0]] * len(names))
        write_raster(tmp_path / "t.tif", pixels, photometric="minisblack")
        name_bands(tmp_path / "t.tif", *names)
        refused(tmp_path / "t.tif", rf"t\.tif: its bands are {', '.join(names)}; expected bands n")

    def test_bands_of_two_types_are_refused(self, tmp_path: Path) -> None:
        """Even if a scale is given."""
        write_bands_of_two_types(tmp_path / "c.vrt")
        refused(tmp_path / "c.vrt", "3 bands of uint16, uint8; .* of one type", scale=(0, 9))

    @pytest.mark.parametrize(
        ("pixels", "message"),
        [
            (RGB[:, :, 0], "1 band of uint8; expected RGB"),
            (RGB[:, :, :2], r"2 bands of uint8( \(gray, alpha\))?; expected RGB"),
            (RGB.astype(np.uint16), "3 bands of uint16; expected 8-bit RGB.*--scale LOW HIGH"),
            (RGB.astype(np.float32), "3 bands of float32; expected 8-bit RGB"),
            (RGB.astype(np.complex64), "holds numbers of type complex64; expected real numbers"),
        ],
    )
    def test_other_bands_and_types_are_refused(
        self, tmp_path: Path, pixels: npt.NDArray[Any], message: str
    ) -> None:
        write_raster(tmp_path / "t.tif", pixels)
        refused(tmp_path / "t.tif", rf"t\.tif: {message}")

    def test_a_palette_is_refused_with_its_remedy(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", RGB[:, :, 0], **GEO)
        with rasterio.open(tmp_path / "t.tif", "r+") as target:
            target.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
        refused(tmp_path / "t.tif", "gdal_translate -expand rgb")

    def test_scale_brings_other_types_to_8_bit(self, tmp_path: Path) -> None:
        values = np.array([[100, 2100, 1100], [0, 9000, 103]], np.uint16)
        write_raster(tmp_path / "t.tif", np.dstack([values] * 3))
        with open_imagery(str(tmp_path / "t.tif"), scale=(100, 2100)) as imagery:
            image, valid = whole(imagery)
        assert image[:, :, 0].tolist() == [[0, 255, 128], [0, 255, 0]]
        assert valid.all()

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_are_no_data(self, tmp_path: Path, value: float) -> None:
        pixels = RGB.astype(np.float32)
        pixels[4, 5, 2] = value
        pixels[6] = value
        write_raster(tmp_path / "t.tif", pixels)
        with open_imagery(str(tmp_path / "t.tif"), scale=(0, 255)) as imagery:
            image, valid = whole(imagery)
        expected = np.ones((40, 60), bool)
        expected[4, 5] = expected[6] = False
        np.testing.assert_array_equal(valid, expected)
        np.testing.assert_array_equal(image, RGB * expected[:, :, None])


KINDS = (
    "none",
    "nodata",
    "lowest nodata",
    "alpha",
    "internal mask",
    "external mask",
    "mask per band",
    "nan",
    "inf",
)


class TestNoData:
    @pytest.mark.parametrize("kind", KINDS)
    @given(
        order=st.permutations(["red", "green", "blue", "alpha", "nir", "undefined"]),
        more=st.sets(st.sampled_from(["nir", "undefined"])),
        down=st.sampled_from([0.5, 1, 2]),
        right=st.sampled_from([0.5, 1, 2]),
        turn=st.sampled_from([0, 30]),
    )
    def test_the_same_pixels_have_no_data_however_it_is_marked_and_resampled(
        self, kind: str, order: list[str], more: set[str], down: float, right: float, turn: float
    ) -> None:
        """The hole lies on pixels of both grids; other bands have data in it."""
        hole = np.zeros((40, 60), bool)
        hole[8:24, 20:36] = kind != "none"
        mask = np.where(hole, 0, 255).astype(np.uint8)
        nodata = {"nodata": 0, "lowest nodata": float(np.finfo(np.float64).min)}.get(kind)
        values = RGB if nodata is None else np.where(hole[:, :, None], nodata, RGB)
        bands = dict(zip(["red", "green", "blue"], values.transpose(2, 0, 1), strict=True))
        bands |= {"alpha": mask, "nir": RGB[:, :, 0], "undefined": RGB[:, :, 1]}
        used = {"red", "green", "blue", *more, *({"alpha"} if kind == "alpha" else ())}
        names = [name for name in order if name in used]
        pixels = np.dstack([bands[name] for name in names])
        options: dict[str, Any] = {}
        if kind in ("nan", "inf"):
            pixels = pixels.astype(np.float32)
            pixels[hole, names.index("green")] = float(kind)
        if pixels.dtype != np.uint8:
            options = {"scale": (0, 255)}
        transform = TRANSFORM @ Affine.rotation(turn) @ Affine.scale(1 / right, 1 / down)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.tif"
            profile = {"photometric": "minisblack", "nodata": nodata, "crs": CRS}
            write_raster(path, pixels, transform=transform, **profile)
            name_bands(path, *names)
            if kind == "mask per band":
                add_mask_per_band(path, mask)
            elif kind.endswith("mask"):
                add_mask(path, mask, internal=kind == "internal mask")
            with open_imagery(str(path), (0.3,), resample=True, **options) as imagery:
                image, valid = whole(imagery)
        assert imagery.gsd == pytest.approx(0.3)
        corner = imagery.transform @ (imagery.width, imagery.height)
        assert corner == pytest.approx(transform @ (60, 40), abs=1e-6)

        def on_new_grid(original: npt.NDArray[Any]) -> npt.NDArray[Any]:
            finer = original.repeat(2, axis=0).repeat(2, axis=1)
            return finer[:: int(2 * down), :: int(2 * right)]

        np.testing.assert_array_equal(valid, ~on_new_grid(hole))
        assert not image[~valid].any()
        if (down, right) == (1, 1):
            np.testing.assert_array_equal(image[valid], RGB[valid])

    def test_resampling_a_part_gives_the_part_of_the_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pixels = RGB.copy()
        pixels[:, 20:27] = 0
        write_raster(tmp_path / "t.tif", pixels, nodata=0, **GEO)
        for trained in (0.17, 0.71):
            with open_imagery(str(tmp_path / "t.tif"), (trained,), resample=True) as imagery:
                image, valid = whole(imagery)
                monkeypatch.setattr(reading, "RESAMPLED_AT_ONCE", 300)
                part, part_valid = imagery.read(3, 11, 5, 15)
                monkeypatch.undo()
            np.testing.assert_array_equal(part_valid, valid[3:14, 5:20])
            assert np.abs(part.astype(int) - image[3:14, 5:20]).max() <= 1


class TestShape:
    @pytest.mark.parametrize("turn", [0, 30])
    @pytest.mark.parametrize(
        ("x", "y", "trained"),
        [(0.5, 2, (0.3,)), (1, 2, (0.3,)), (2, 1, (0.1, 0.6)), (1.06, 1, (0.3,))],
    )
    def test_oblong_pixels_are_an_error_that_states_both_sides_and_are_made_square(
        self, tmp_path: Path, x: float, y: float, trained: tuple[float, ...], turn: float
    ) -> None:
        path = tmp_path / "t.tif"
        transform = TRANSFORM @ Affine.rotation(turn) @ Affine.scale(x, y)
        write_raster(path, RGB, crs=CRS, transform=transform)
        found = f"its pixels are {0.3 * x:g} x {0.3 * y:g} m; expected square ones. Use --resample"
        refused(path, re.escape(found), *trained)
        refused(path, r"its pixels are .* Warp it to square pixels.*`gdalwarp -tr ")
        with open_imagery(str(path), trained, resample=True) as imagery:
            grid = Affine(*imagery.transform[:6])
            assert imagery.gsd in trained
        for side in (np.hypot(grid.a, grid.d), np.hypot(grid.b, grid.e)):
            assert side == pytest.approx(imagery.gsd, rel=0.02)
        corner = transform @ (60, 40)
        assert grid @ (imagery.width, imagery.height) == pytest.approx(corner, abs=1e-6)

    @pytest.mark.parametrize("crs", [CRS, "EPSG:3857", None])
    def test_gsd_gives_the_area_of_oblong_pixels_and_not_their_shape(
        self, tmp_path: Path, crs: str | None
    ) -> None:
        path = tmp_path / "t.tif"
        write_raster(path, RGB, crs=crs, transform=TRANSFORM @ Affine.scale(1, 4))
        refused(path, r"its pixels are 0\.15\d* x 0\.(6|598\d+) m; expected square", 0.3, gsd=0.3)
        with open_imagery(str(path), (0.3,), gsd=0.3, resample=True) as imagery:
            assert (imagery.height, imagery.width, imagery.gsd) == (80, 30, 0.3)
            (note,) = imagery.notes
            assert re.fullmatch(r"resampled from 0\.15\d* x 0\.\d+ to 0\.3 m per pixel", note)

    def test_oblong_pixels_of_unknown_gsd_are_refused(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", RGB, transform=TRANSFORM @ Affine.scale(1, 2))
        message = r"its pixels are 0\.3 x 0\.6 units of its georeference; expected square ones"
        refused(tmp_path / "t.tif", message, 0.3)

    def test_sides_within_the_tolerance_are_square(self, tmp_path: Path) -> None:
        transform = TRANSFORM @ Affine.scale(1.02, 0.98)
        write_raster(tmp_path / "t.tif", RGB, crs=CRS, transform=transform)
        with open_imagery(str(tmp_path / "t.tif"), (0.3,), resample=True) as imagery:
            assert (imagery.transform, imagery.notes) == (transform, [])

    def test_sheared_pixels_are_refused_even_to_resample(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", RGB, crs=CRS, transform=TRANSFORM @ Affine.shear(20))
        for resample in (False, True):
            message = r"its pixels are sheared .* Warp it to square pixels"
            refused(tmp_path / "t.tif", message, 0.3, resample=resample)


class TestGsd:
    def test_another_gsd_is_an_error_that_states_both(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", RGB, **GEO)
        message = r"t\.tif: 0\.3 m per pixel, but the model was trained on 0\.5 to 1 m per pixel"
        refused(tmp_path / "t.tif", message, 0.5, 1.0)

    @pytest.mark.parametrize("trained", [(), (0.3,), (0.29,), (0.31,), (0.1, 0.6)])
    def test_a_gsd_near_or_between_those_trained_on_is_accepted(
        self, tmp_path: Path, trained: tuple[float, ...]
    ) -> None:
        write_raster(tmp_path / "t.tif", RGB, **GEO)
        resample = bool(trained)  # an error where the trained GSD is unknown
        with open_imagery(str(tmp_path / "t.tif"), trained, resample=resample) as imagery:
            assert (imagery.height, imagery.gsd, imagery.notes) == (40, 0.3, [])

    @pytest.mark.parametrize("profile", [{}, {"crs": "EPSG:4326", "transform": TRANSFORM}])
    def test_an_unknown_gsd_is_noted_and_can_be_given(
        self, tmp_path: Path, profile: dict[str, Any]
    ) -> None:
        write_raster(tmp_path / "t.tif", RGB, **profile)
        path = str(tmp_path / "t.tif")
        with open_imagery(path, (0.3,)) as imagery:
            assert imagery.gsd is None
            assert imagery.notes == [
                "its GSD is unknown; taken as the 0.3 m per pixel trained on (--gsd)"
            ]
        with open_imagery(path, (0.3,), gsd=0.3) as imagery:
            assert (imagery.gsd, imagery.notes) == (0.3, [])
        refused(path, r"its GSD is unknown.*--gsd METRES", 0.3, resample=True)
        refused(path, r"0\.5 m per pixel, but the model.* 0\.3 m", 0.3, gsd=0.5)

    @pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
    def test_the_gsd_of_web_tiles_is_measured_on_the_ground(self, tmp_path: Path, crs: str) -> None:
        path = str(tmp_path / "t.tif")
        place = tile_transform(*tile_at(13.4, 52.5), crs)  # 0.299 m at the equator
        write_raster(Path(path), RGB, crs=crs, transform=place)
        with open_imagery(path, (0.18,)) as imagery:
            assert (imagery.gsd, imagery.notes) == (0.182, [])
        refused(path, r"0\.182 m per pixel, but the model was trained on 0\.3 m", 0.3)
        with open_imagery(path, (0.3,), resample=True) as imagery:
            assert (imagery.gsd, imagery.height) == (0.3, round(40 * 0.182 / 0.3))

    def test_resampling_needs_the_gsd_trained_on(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", RGB, **GEO)
        refused(tmp_path / "t.tif", r"t\.tif: --resample .* does not state it", resample=True)

    def test_imagery_too_coarse_for_roofs_is_refused(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", RGB, **GEO)
        message = r"t\.tif: 4 m per pixel, more than 10 times the 0\.3 m"
        refused(tmp_path / "t.tif", message, 0.1, 0.3, gsd=4.0, resample=True)
        refused(tmp_path / "t.tif", message, 0.1, 0.3, gsd=4.0)  # --resample would not help
        with open_imagery(str(tmp_path / "t.tif"), (0.3,), gsd=3.0, resample=True) as imagery:
            assert (imagery.height, imagery.width) == (400, 600)

    @pytest.mark.parametrize("georeferenced", [True, False])
    def test_finer_imagery_is_averaged_onto_a_new_grid(
        self, tmp_path: Path, georeferenced: bool
    ) -> None:
        write_raster(tmp_path / "t.tif", RGB, **(GEO if georeferenced else {}))
        with open_imagery(str(tmp_path / "t.tif"), (0.6,), gsd=0.3, resample=True) as imagery:
            assert (imagery.height, imagery.width, imagery.gsd) == (20, 30, 0.6)
            origin = TRANSFORM if georeferenced else Affine.identity()
            assert imagery.transform.almost_equals(origin @ Affine.scale(2))
            assert imagery.crs == (CRS if georeferenced else None)
            assert imagery.notes == ["resampled from 0.3 to 0.6 m per pixel"]
            image, valid = whole(imagery)
        means = RGB.reshape(20, 2, 30, 2, 3).mean((1, 3))
        assert np.abs(image - means).max() <= 0.5
        assert valid.all()

    def test_coarser_imagery_is_refined_to_the_nearest_gsd(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", RGB, **GEO)
        with open_imagery(str(tmp_path / "t.tif"), (0.075, 0.15), resample=True) as imagery:
            assert (imagery.height, imagery.width, imagery.gsd) == (80, 120, 0.15)
            image, _ = whole(imagery)
        back = image.reshape(40, 2, 60, 2, 3).mean((1, 3))
        assert np.corrcoef(back.ravel(), RGB.ravel())[0, 1] > 0.95


class TestBroken:
    def test_a_missing_an_empty_and_a_renamed_file_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "empty.tif").touch()
        (tmp_path / "renamed.tif").write_text("no raster")
        (tmp_path / "loop.tif").symlink_to("loop.tif")
        for name in ("missing.tif", "empty.tif", "renamed.tif", "loop.tif"):
            refused(tmp_path / name, rf"{name}: cannot be read; it is missing, cut")

    @pytest.mark.parametrize("size", [0, 20])
    def test_a_vrt_without_size_or_source_is_named(self, tmp_path: Path, size: int) -> None:
        band = (
            '<VRTRasterBand dataType="Byte" band="{}"><SimpleSource><SourceFilename '
            'relativeToVRT="1">gone.tif</SourceFilename><SourceBand>1</SourceBand>'
            "</SimpleSource></VRTRasterBand>"
        )
        bands = "".join(band.format(number) for number in (1, 2, 3))
        (tmp_path / "t.vrt").write_text(
            f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}">{bands}</VRTDataset>'
        )
        refused(tmp_path / "t.vrt", r"t\.vrt: cannot be read")

    def test_a_crs_with_an_undecodable_name_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tif"
        write_raster(path, RGB, crs="+proj=tmerc +lon_0=2 +datum=WGS84", transform=TRANSFORM)
        path.write_bytes(path.read_bytes().replace(b"unknown", b"\xffnknown"))
        refused(path, r"t\.tif: cannot be read; .*damaged.* codec can't decode")

    def test_a_crs_without_transform_is_ignored(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", RGB, crs=CRS)
        with open_imagery(str(tmp_path / "t.tif"), (0.3,)) as imagery:
            assert (imagery.crs, imagery.gsd) == (None, None)
        with open_imagery(str(tmp_path / "t.tif"), (0.3,), gsd=0.15, resample=True) as imagery:
            assert (imagery.crs, imagery.gsd) == (None, 0.3)

    def test_unused_control_points_are_noted(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tif"
        corners = [(0, 0), (0, 60), (40, 0)]
        points = [
            GroundControlPoint(row, col, *(TRANSFORM @ (col, row)), 0) for row, col in corners
        ]
        write_raster(path, RGB, gcps=points, crs=CRS)
        with open_imagery(str(path)) as imagery:
            assert imagery.crs is None
            assert "its control points are not used" in imagery.notes[0]

    def test_unused_rpcs_are_noted_and_the_remedy_places_the_raster(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tif"
        write_raster(path, RGB)
        add_rpcs(path)
        with open_imagery(str(path)) as imagery:
            assert imagery.crs is None
            assert re.match("its RPCs .* are not used, .*`gdalwarp -rpc ", imagery.notes[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                pixels, transform = reproject(
                    source.read(), rpcs=source.rpcs, src_crs="EPSG:4326", dst_crs=CRS
                )
        write_raster(path, pixels.transpose(1, 2, 0), crs=CRS, transform=transform)
        with open_imagery(str(path)) as imagery:
            assert (str(imagery.crs), imagery.notes) == (CRS, [])

    @pytest.mark.parametrize("name", ["t.jpg", "t.tif"])
    def test_an_orientation_tag_is_noted(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        for tag in range(1, 9):
            write_turned(path, RGB, tag)
            with open_imagery(str(path)) as imagery:
                assert (imagery.height, imagery.width) == (40, 60)
                note = f"its orientation tag ({tag}) is not used"
                assert [note in said for said in imagery.notes] == [True] * (tag > 1)

    @pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to a pipe"])
    def test_what_is_no_regular_file_is_refused(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reading a pipe would wait until somebody writes to it."""
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        path = Path("t.tif")
        if kind == "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind("t.tif")
        elif kind == "device":
            path.symlink_to(os.devnull)
        else:
            os.mkfifo("p" if "link" in kind else "t.tif")
            if "link" in kind:
                path.symlink_to("p")
        assert list_inputs([str(tmp_path)]) == [str(tmp_path / "t.tif")]
        for name in (path, tmp_path / path, f"GPKG:{path}:a"):
            refused(name, re.escape(f"{name}: is a pipe, a device or a socket; expected a regular"))

    def test_a_degenerate_transform_gives_no_gsd(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", RGB, crs=CRS, transform=Affine(0, 0, 6e5, 0, 0, 3e6))
        with open_imagery(str(tmp_path / "t.tif"), (0.3,)) as imagery:
            assert imagery.gsd is None
        refused(tmp_path / "t.tif", "its GSD is unknown.*--gsd METRES", 0.3, resample=True)

    def test_of_several_rasters_in_a_file_one_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "city.gpkg"
        write_container(path, {"a": RGB, "b": RGB[::-1]})
        names = [f"GPKG:{path}:{name}" for name in "ab"]
        refused(
            path, re.escape(f"{path}: holds 2 rasters; expected one. Extract one, for example ")
        )
        refused(path, re.escape(f"also takes their names as INPUT: {', '.join(names)}."))
        assert list_inputs(names) == names
        assert [output_stem(name) for name in names] == ["city_a", "city_b"]
        for name, pixels in zip(names, (RGB, RGB[::-1]), strict=True):
            with open_imagery(name, (0.3,)) as imagery:
                np.testing.assert_array_equal(whole(imagery)[0], pixels)

    def test_a_truncated_file_is_named_when_it_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tif"
        write_raster(path, RGB, compress="deflate", tiled=True, blockxsize=16, blockysize=16)
        path.write_bytes(path.read_bytes()[:-2000])
        refused(path, r"t\.tif: cannot be read")

    @pytest.mark.parametrize("seed", range(60))
    def test_corrupted_files_are_read_or_refused_by_name(self, tmp_path: Path, seed: int) -> None:
        """Fuzzed headers (even seeds) and pixels give a UserError or some pixels."""
        path, rng = tmp_path / "t.tif", np.random.default_rng(seed)
        write_raster(path, RGB, compress="deflate", **GEO)
        data = bytearray(path.read_bytes())
        places = range(0, 300) if seed % 2 == 0 else range(300, len(data))
        for place in rng.choice(places, 12):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        message = ""
        try:
            with open_imagery(str(path)) as imagery:
                if imagery.height * imagery.width < 10**6:
                    image, _ = whole(imagery)
                    assert image.shape == (imagery.height, imagery.width, 3)
        except UserError as error:
            message = str(error)
        assert not message or message.startswith(f"{path}: ")


class TestNames:
    def test_a_folder_gives_its_rasters_sorted(self, tmp_path: Path) -> None:
        for name in ("b.tif", "a.TIF", "c.vrt", "a.tif.aux.xml", "notes.txt", ".hidden.tif"):
            (tmp_path / name).touch()
        (tmp_path / "below.tif").mkdir()
        names = [str(tmp_path / name) for name in ("a.TIF", "b.tif", "c.vrt")]
        assert list_inputs([str(tmp_path)]) == names
        file = str(tmp_path / "notes.txt")  # named: GDAL says whether it is a raster
        remote = "s3://bucket/y.tif"
        assert list_inputs([file, str(tmp_path), remote]) == [file, *names, remote]
        with pytest.raises(UserError, match=r"^2 problems:\n  x.bin: no such file or folder"):
            list_inputs(["x.bin", remote, file, "y.tif"])

    @pytest.mark.parametrize(
        ("name", "missing"),
        [
            ("GPKG:city.gpkg:roofs", "city.gpkg"),
            ('HDF5:"a b.h5"://roofs', "a b.h5"),
            ("GTIFF_DIR:2:none.tif", "none.tif"),
        ],
    )
    def test_a_raster_in_a_file_that_is_missing(self, name: str, missing: str) -> None:
        with pytest.raises(UserError, match=rf"^{missing}: no such file or folder"):
            list_inputs([name])

    def test_a_folder_without_rasters_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        with pytest.raises(UserError, match=re.escape(f"{tmp_path}: no raster in this folder")):
            list_inputs([str(tmp_path)])

    def test_a_name_in_another_encoding_is_an_error(self, tmp_path: Path) -> None:
        try:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/D\xe4cher.tif")).touch()
        except OSError:
            pytest.skip("this file system has names in UTF-8 alone")
        with pytest.raises(UserError, match=r"D\\udce4cher\.tif: its name is not UTF-8"):
            list_inputs([str(tmp_path)])

    @pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x7f", "\x85", "\u2028"])
    def test_a_line_break_or_control_character_in_a_name_is_an_error(
        self, tmp_path: Path, character: str
    ) -> None:
        path = tmp_path / f"Dach {character}ä.tif"
        path.touch()
        for given_name in (path, tmp_path):
            with pytest.raises(UserError, match="its name has a line break or control") as caught:
                list_inputs([str(given_name)])
            assert str(caught.value).isprintable()

    def test_an_empty_name_is_an_error(self) -> None:
        with pytest.raises(UserError, match="an input's name is empty"):
            list_inputs([""])

    def test_an_unreadable_folder_is_an_error(self) -> None:
        with public_folder() as public:
            public.chmod(0)
            with nobody(), pytest.raises(PermissionError, match=re.escape(str(public))):
                list_inputs([str(public)])

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("x/a.b.tif", "a.b.tif"),
            ("https://host/x/a.tif?key=secret/z", "a.tif"),
            ("s3://bucket/x/a.tif", "a.tif"),
            ("/vsizip/x.zip/a.tif", "a.tif"),
            ("what?.tif", "what?.tif"),
        ],
    )
    def test_file_names(self, name: str, expected: str) -> None:
        assert file_name(name) == expected
        assert output_stem(name) == Path(expected).stem

    @pytest.mark.parametrize(
        ("name", "expected", "stem"),
        [
            ("GPKG:c.gpkg:ortho", "c.gpkg:ortho", "c_ortho"),
            ("GPKG:x/c.gpkg:ortho 2024", "c.gpkg:ortho 2024", "c_ortho_2024"),
            ('NETCDF:"x/c.nc":rgb', "c.nc:rgb", "c_rgb"),
            ('HDF5:"x/c.h5"://a/rgb', "c.h5://a/rgb", "c_a_rgb"),
            ("GTIFF_DIR:2:x/c.tif", "2:c.tif", "2_c"),
            ("roofs:north.tif", "roofs:north.tif", "roofs:north"),
        ],
    )
    def test_file_names_of_one_of_several_rasters(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        expected: str,
        stem: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("x").mkdir()
        for file in ("c.gpkg", "x/c.gpkg", "x/c.nc", "x/c.h5", "x/c.tif", "roofs:north.tif"):
            Path(file).touch()
        assert (file_name(name), output_stem(name)) == (expected, stem)


def test_a_url_is_read_by_ranges(tmp_path: Path) -> None:
    """Reading a part of a tiled file fetches only that part."""
    pixels = np.random.default_rng(1).integers(1, 255, (1024, 1024, 3)).astype(np.uint8)
    write_raster(tmp_path / "t.tif", pixels, tiled=True, blockxsize=256, blockysize=256, **GEO)
    with served(tmp_path) as (address, asked):
        with open_imagery(f"{address}/t.tif?key=1", (0.3,)) as imagery:
            image, _ = imagery.read(300, 100, 300, 100)
        refused(f"{address}/none.tif", r"127\.0\.0\.1.*/none\.tif: cannot be read.*404")
    np.testing.assert_array_equal(image, pixels[300:400, 300:400])
    ranges = [wanted for path, wanted in asked if path.startswith("/t.tif") and wanted]
    fetched = 0
    for wanted in ranges:
        first, last = wanted.removeprefix("bytes=").split("-")
        fetched += int(last) + 1 - int(first)
    assert 0 < fetched < pixels.nbytes / 2
