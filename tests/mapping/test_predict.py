from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from graph import ROOT
from identity import Identity, P, picture, rate
from raster_files import name_bands
from tiny_dataset import CRS, TRANSFORM, write_raster
from unwritable import full_disk

from roofseg.core.errors import UserError
from roofseg.inference.predictor import Images, Probabilities
from roofseg.mapping.cog import NotWrittenError
from roofseg.mapping.footprints import Vector
from roofseg.mapping.predict import (
    Options,
    is_finished,
    open_input,
    predict_raster,
    remove_leftovers,
)
from roofseg.metrics import THRESHOLD
from roofseg.tiles.rasters import open_raster

GEO = {"crs": CRS, "transform": TRANSFORM}
SITE = 'LOCAL_CS["site",UNIT["metre",1]]'
RATES = Options(output="probability")


class Broken(Identity):
    """Fails at its third batch."""

    def __call__(self, images: Images) -> Probabilities:
        if len(self.seen) == 2:
            raise RuntimeError("out of memory")
        return super().__call__(images)


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "tile.tif"
    write_raster(path, picture(90, 130), **GEO)
    return path


def read(path: Path) -> npt.NDArray[Any]:
    with rasterio.open(path) as source:
        return source.read(1)


class TestRaster:
    def test_probabilities_on_the_grid_of_the_input(self, tile: Path, tmp_path: Path) -> None:
        out = tmp_path / "maps" / "tile.tif"
        predict_raster(Identity(), str(tile), out, RATES)
        with rasterio.open(out) as found:
            np.testing.assert_array_equal(found.read(1), rate(picture(90, 130)))
            assert (found.crs, found.transform) == (CRS, TRANSFORM)
            assert np.isnan(found.nodata)
            tags = found.tags()
        assert tags["ROOFSEG_ATTEMPT"] == "identity"
        assert tags["ROOFSEG_WEIGHTS_SHA256"] == "1" * 64
        assert tags["ROOFSEG_SOURCE"] == "tile.tif"
        assert json.loads(tags["ROOFSEG_OPTIONS"])["output"] == "probability"
        assert list(out.parent.iterdir()) == [out]

    def test_a_rotated_raster_has_a_rotated_result(self, tmp_path: Path) -> None:
        turned = TRANSFORM @ rasterio.Affine.rotation(30)
        write_raster(tmp_path / "t.tif", picture(40, 50), crs=CRS, transform=turned)
        predict_raster(Identity(), str(tmp_path / "t.tif"), tmp_path / "o.tif", RATES)
        with rasterio.open(tmp_path / "o.tif") as found:
            np.testing.assert_array_equal(found.read(1), rate(picture(40, 50)))
            assert found.transform.almost_equals(turned)

    def test_bands_in_another_order_give_the_same_result(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tif"
        write_raster(path, picture(40, 50)[:, :, ::-1], photometric="minisblack", **GEO)
        name_bands(path, "blue", "green", "red")
        predict_raster(Identity(), str(path), tmp_path / "o.tif", RATES)
        np.testing.assert_array_equal(read(tmp_path / "o.tif"), rate(picture(40, 50)))

    @pytest.mark.parametrize("threshold", [0.5, 0.2])
    def test_masks(self, tmp_path: Path, threshold: float) -> None:
        pixels = picture(50, 70)
        pixels[0, 0] = (128, 0, 0)  # exactly 0.5
        pixels[20:30] = 0
        write_raster(tmp_path / "t.tif", pixels, nodata=0)
        out = tmp_path / "out.tif"
        predict_raster(Identity(), str(tmp_path / "t.tif"), out, Options(threshold=threshold))
        expected = np.where(pixels.any(2), rate(pixels) >= threshold, 255)
        assert read(out)[0, 0] == 1
        np.testing.assert_array_equal(read(out), expected)
        with rasterio.open(out) as found:
            assert (found.dtypes, found.nodata) == (("uint8",), 255)

    def test_the_default_threshold_is_that_of_the_scores(self) -> None:
        assert Options().threshold == THRESHOLD

    def test_no_data_of_probabilities_is_nan(self, tmp_path: Path) -> None:
        pixels = picture(50, 70) | 1
        pixels[20:30] = 0
        write_raster(tmp_path / "t.tif", pixels, nodata=0, **GEO)
        predict_raster(Identity(), str(tmp_path / "t.tif"), tmp_path / "out.tif", RATES)
        np.testing.assert_array_equal(np.isnan(read(tmp_path / "out.tif")), ~pixels.any(2))

    def test_a_raster_without_georeference_gives_a_result_without(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.png", picture(50, 70))
        predict_raster(Identity(), str(tmp_path / "t.png"), tmp_path / "out.tif", RATES)
        with open_raster(str(tmp_path / "out.tif")) as found:
            assert found.crs is None
            assert found.transform == rasterio.Affine.identity()

    def test_the_mean_over_symmetries_is_taken(self, tile: Path, tmp_path: Path) -> None:
        corner = Identity()
        corner_only = np.zeros((P, P), np.float32)
        corner_only[: P // 2, : P // 2] = 1

        class Corner(Identity):
            def __call__(self, images: Images) -> Probabilities:
                return np.broadcast_to(corner_only, images.shape[:3]).copy()

        predict_raster(Corner(), str(tile), tmp_path / "o.tif", replace(RATES, tta=True))
        np.testing.assert_allclose(read(tmp_path / "o.tif"), 0.25, rtol=1e-6)
        predict_raster(corner, str(tile), tmp_path / "i.tif", replace(RATES, tta=True))
        np.testing.assert_array_equal(read(tmp_path / "i.tif"), rate(picture(90, 130)))

    def test_resampling_gives_a_result_on_the_models_grid(self, tile: Path, tmp_path: Path) -> None:
        predictor = Identity()
        predictor.gsd = (0.6,)
        with pytest.raises(UserError, match=r"tile\.tif: 0\.3 m per pixel"):
            predict_raster(predictor, str(tile), tmp_path / "o.tif", RATES)
        predict_raster(predictor, str(tile), tmp_path / "o.tif", replace(RATES, resample=True))
        with rasterio.open(tmp_path / "o.tif") as found:
            assert found.shape == (45, 65)
            assert found.transform.almost_equals(TRANSFORM @ rasterio.Affine.scale(2))

    @pytest.mark.parametrize(("batch_size", "largest"), [(2, 2), (None, 6)])
    def test_batches_have_the_given_size(
        self, tile: Path, tmp_path: Path, batch_size: int | None, largest: int
    ) -> None:
        """By default a batch has as many windows as fit a megapixel: here a whole row."""
        predictor = Identity()
        predict_raster(predictor, str(tile), tmp_path / "o.tif", Options(batch_size=batch_size))
        assert max(map(len, predictor.seen)) == largest

    def test_a_result_replaces_an_older_one(self, tile: Path, tmp_path: Path) -> None:
        (tmp_path / "o.tif").write_text("old")
        predict_raster(Identity(), str(tile), tmp_path / "o.tif", Options())
        assert read(tmp_path / "o.tif").shape == (90, 130)


class TestNothingHalfWritten:
    def test_a_failing_predictor_leaves_no_output(self, tile: Path, tmp_path: Path) -> None:
        out = tmp_path / "maps" / "tile.tif"
        out.parent.mkdir()
        out.write_text("old")
        with pytest.raises(RuntimeError, match="out of memory"):
            predict_raster(Broken(), str(tile), out, Options(batch_size=1))
        assert [path.read_text() for path in out.parent.iterdir()] == ["old"]

    def test_a_model_that_gives_nan_leaves_no_output(self, tile: Path, tmp_path: Path) -> None:
        class Overflown(Identity):
            def __call__(self, images: Images) -> Probabilities:
                return np.where(images[..., 0] == 255, np.float32(np.nan), rate(images))

        with pytest.raises(UserError, match=r"tile\.tif: the model gives NaN.*--precision 32-true"):
            predict_raster(Overflown(), str(tile), tmp_path / "maps" / "o.tif", Options())
        assert list((tmp_path / "maps").iterdir()) == []

    def test_damaged_pixels_leave_no_output(self, tmp_path: Path) -> None:
        path = tmp_path / "t.tif"
        write_raster(path, picture(300, 300), compress="deflate", **GEO)
        data = bytearray(path.read_bytes())
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"t\.tif: cannot be read"):
            predict_raster(Identity(), str(path), tmp_path / "maps" / "o.tif", Options())
        assert list((tmp_path / "maps").iterdir()) == []

    @pytest.mark.whole
    @pytest.mark.parametrize("options", [Options(), RATES])
    def test_a_full_disk_leaves_no_output(self, tmp_path: Path, options: Options) -> None:
        """A limit on file sizes imitates a full disk: writes beyond it fail."""
        write_raster(tmp_path / "t.tif", picture(900, 900), **GEO)
        out = tmp_path / "maps" / "t.tif"
        predict_raster(Identity(), str(tmp_path / "t.tif"), out, options)
        whole, size = out.read_bytes(), out.stat().st_size
        out.unlink()
        for limit in np.linspace(100, size - 1, 12).astype(int).tolist():
            says = r"t\.tif: cannot be written \(.*Free s"
            with full_disk(limit), pytest.raises(NotWrittenError, match=says):
                predict_raster(Identity(), str(tmp_path / "t.tif"), out, options)
            assert list(out.parent.iterdir()) == []
        predict_raster(Identity(), str(tmp_path / "t.tif"), out, options)
        assert out.read_bytes() == whole

    def test_a_file_in_place_of_the_output_folder(self, tile: Path, tmp_path: Path) -> None:
        (tmp_path / "maps").write_text("a file")
        with pytest.raises(NotWrittenError, match=r"maps/o\.tif: cannot be written"):
            predict_raster(Identity(), str(tile), tmp_path / "maps" / "o.tif", Options())


class TestFinished:
    def test_the_same_model_and_options_are_finished(self, tile: Path, tmp_path: Path) -> None:
        out = tmp_path / "o.tif"
        assert not is_finished(Identity(), str(tile), out, Options())
        predict_raster(Identity(), str(tile), out, Options())
        assert is_finished(Identity(), str(tile), out, Options())
        assert is_finished(Identity(), str(tile), out, Options(batch_size=1))

    @pytest.mark.parametrize("seconds", [-1e6, 1e-6, 1e6])
    def test_a_changed_input_makes_the_output_out_of_date(
        self, tile: Path, tmp_path: Path, seconds: float
    ) -> None:
        """Also if it is older, as after `cp -p`, unzip and rsync; a copy with a new time, too."""
        predict_raster(Identity(), str(tile), tmp_path / "o.tif", Options())
        made = tile.stat().st_mtime_ns + int(seconds * 1e9)
        os.utime(tile, ns=(made, made))
        assert not is_finished(Identity(), str(tile), tmp_path / "o.tif", Options())

    def test_an_output_that_does_not_know_its_input_is_out_of_date(
        self, tile: Path, tmp_path: Path
    ) -> None:
        predict_raster(Identity(), str(tile), tmp_path / "o.tif", Options())
        with rasterio.open(tmp_path / "o.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as old:
            old.update_tags(ROOFSEG_INPUT="")
        assert not is_finished(Identity(), str(tile), tmp_path / "o.tif", Options())

    @pytest.mark.parametrize(
        ("predictor", "options", "key"),
        [
            (Identity("2" * 64), Options(), "ROOFSEG_WEIGHTS_SHA256"),
            (Identity(), Options(output="probability"), "ROOFSEG_OPTIONS"),
            (Identity(), Options(threshold=0.4), "ROOFSEG_OPTIONS"),
            (Identity(), Options(overlap=0.5), "ROOFSEG_OPTIONS"),
            (Identity(), Options(tta=True), "ROOFSEG_OPTIONS"),
            (Identity(), Options(vector=Vector("gpkg")), "ROOFSEG_OPTIONS"),
            (Identity(), Options(disagreement=True), "ROOFSEG_OPTIONS"),
        ],
    )
    def test_an_output_of_other_options_is_not_touched(
        self, tile: Path, tmp_path: Path, predictor: Identity, options: Options, key: str
    ) -> None:
        predict_raster(Identity(), str(tile), tmp_path / "o.tif", Options())
        with pytest.raises(UserError, match=rf"o\.tif: already exists, with {key}.*--overw"):
            is_finished(predictor, str(tile), tmp_path / "o.tif", options)

    def test_a_damaged_output(self, tile: Path, tmp_path: Path) -> None:
        (tmp_path / "o.tif").write_bytes(tile.read_bytes()[:200])
        says = r"o\.tif: already exists, and is no raster or a damaged one. Use --overwrite"
        with pytest.raises(UserError, match=says):
            is_finished(Identity(), str(tile), tmp_path / "o.tif", Options())

    def test_the_message_shows_the_options_that_differ(self, tile: Path, tmp_path: Path) -> None:
        predict_raster(Identity(), str(tile), tmp_path / "o.tif", Options())
        message = r"""OPTIONS '{"tta": false}'; expected '{"tta": true}'\. Use"""
        with pytest.raises(UserError, match=message):
            is_finished(Identity(), str(tile), tmp_path / "o.tif", Options(tta=True))

    def test_an_output_of_another_input_is_not_touched(self, tile: Path, tmp_path: Path) -> None:
        predict_raster(Identity(), str(tile), tmp_path / "o.tif", Options())
        write_raster(tmp_path / "in" / "other.tif", picture(9, 9), **GEO)
        with pytest.raises(UserError, match=r"ROOFSEG_SOURCE 'tile\.tif'; expected 'other\.tif'"):
            is_finished(
                Identity(), str(tmp_path / "in" / "other.tif"), tmp_path / "o.tif", Options()
            )
        with pytest.raises(UserError, match="ROOFSEG_ATTEMPT 'unknown'"):
            is_finished(Identity(), str(tile), tile, Options())


class TestVector:
    def test_footprints_are_written_beside_the_mask(self, tmp_path: Path) -> None:
        import pyogrio

        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[8:18, 10:30] = (200, 0, 0)
        write_raster(tmp_path / "t.tif", pixels, **GEO)
        out, options = tmp_path / "maps" / "t.tif", Options(vector=Vector("gpkg"))
        predict_raster(Identity(), str(tmp_path / "t.tif"), out, options)
        made = out.with_name("t.gpkg")
        assert sorted(out.parent.iterdir()) == sorted([out, made])
        found = pyogrio.read_dataframe(made)
        assert found.area.tolist() == pytest.approx([200 * 0.09])
        assert found.crs == CRS
        np.testing.assert_allclose(found["mean_probability"], 200 / 256, rtol=1e-6)
        assert is_finished(Identity(), str(tmp_path / "t.tif"), out, options)
        made.unlink()
        assert not is_finished(Identity(), str(tmp_path / "t.tif"), out, options)

    def test_regularising_needs_lengths_and_its_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_raster(tmp_path / "t.tif", picture(40, 40))
        options = Options(vector=Vector("gpkg", regularise=True))
        for message in (r"t\.tif: has no CRS and", "buildingregulariser, which is not installed"):
            with (
                pytest.raises(UserError, match=message),
                open_input(Identity(), str(tmp_path / "t.tif"), options),
            ):
                pass
            monkeypatch.setitem(sys.modules, "buildingregulariser", None)

    @pytest.mark.parametrize(("driver", "notes"), [("geojson", 1), ("gpkg", 0)])
    def test_geojson_that_may_lie_off_is_noted(
        self, tmp_path: Path, driver: Any, notes: int
    ) -> None:
        """Only GeoJSON has another CRS than the raster."""
        transform = rasterio.Affine(0.3, 0, 530_000, 0, -0.3, 180_000)
        write_raster(tmp_path / "t.tif", picture(40, 40), crs="EPSG:27700", transform=transform)
        options = Options(vector=Vector(driver))
        with open_input(Identity(), str(tmp_path / "t.tif"), options) as imagery:
            assert len(imagery.notes) == notes
            for note in imagery.notes:
                assert "footprints may be off by 2 m (7 px), because PROJ lacks the grid uk" in note

    def test_a_raster_outside_its_crs_is_an_error_of_the_input(self, tmp_path: Path) -> None:
        far = rasterio.Affine(0.3, 0, 1e12, 0, -0.3, 1e12)
        write_raster(tmp_path / "t.tif", picture(40, 40), crs=CRS, transform=far)
        source, out = str(tmp_path / "t.tif"), tmp_path / "maps" / "t.tif"
        with pytest.raises(UserError, match=rf"^{re.escape(source)}: its CRS is EPSG:32614, but"):
            predict_raster(Identity(), source, out, Options(vector=Vector("gpkg")))
        assert not out.parent.exists()  # the error came before prediction

    def test_other_footprints_are_not_touched(self, tile: Path, tmp_path: Path) -> None:
        (tmp_path / "o.gpkg").write_text("mine")
        with pytest.raises(UserError, match=r"o\.gpkg: already exists.*--overwrite"):
            is_finished(Identity(), str(tile), tmp_path / "o.tif", Options(vector=Vector("gpkg")))
        assert not is_finished(Identity(), str(tile), tmp_path / "o.tif", Options())

    @pytest.mark.whole
    @pytest.mark.parametrize("before", [None, Options(vector=Vector("gpkg"), threshold=0.4)])
    def test_a_run_killed_before_the_footprints_is_not_finished(
        self, tile: Path, tmp_path: Path, before: Options | None
    ) -> None:
        """Even if the footprints of an older run were there."""
        out, options = tmp_path / "maps" / "tile.tif", Options(vector=Vector("gpkg"))
        if before:
            predict_raster(Identity(), str(tile), out, before)
        sources = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
        command = [sys.executable, "-c", KILLED, str(tile), str(out)]
        killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": sources})
        assert killed.returncode == -signal.SIGKILL
        assert [path.name for path in out.parent.glob("[!.]*")] == ["tile.tif"]
        assert not is_finished(Identity(), str(tile), out, options)
        assert len(list(out.parent.iterdir())) > 1
        remove_leftovers(out.parent, [out], options)
        assert list(out.parent.iterdir()) == [out]

    def test_leftovers_of_other_outputs_are_kept(self, tmp_path: Path) -> None:
        """Another run may be writing them."""
        ours = {".a.tif.12345678", ".a.gpkg.abcdefgh"}
        others = {
            ".a.tif.tif.12345678",
            ".b.tif.12345678",
            ".a.geojson.12345678",
            ".a.tif",
            "a.b.c",
        }
        for name in ours | others:
            (tmp_path / name).mkdir()
        remove_leftovers(tmp_path, [tmp_path / "a.tif"], Options(vector=Vector("gpkg")))
        assert {path.name for path in tmp_path.iterdir()} == others

    def test_a_full_disk_ends_the_whole_run(self, tile: Path, tmp_path: Path) -> None:
        out, options = tmp_path / "maps" / "o.tif", Options(vector=Vector("gpkg"))
        with full_disk(80_000), pytest.raises(NotWrittenError, match=r"maps/o\.gpkg: cannot be w"):
            predict_raster(Identity(), str(tile), out, options)
        assert list(out.parent.iterdir()) == []

    @pytest.mark.parametrize(
        ("profile", "vector", "message"),
        [
            ({"crs": CRS}, Vector("geojson"), "has no CRS and transform that place it on Earth"),
            ({"crs": SITE, "transform": TRANSFORM}, Vector("gpkg", 1.0), "that give lengths"),
            (
                {"crs": CRS, "transform": rasterio.Affine(0.3, 0, 0, 0.3, 0, 0)},
                Vector("gpkg"),
                "gives pixels no area",
            ),
        ],
    )
    def test_footprints_that_cannot_be_written_are_an_error_at_opening(
        self, tmp_path: Path, profile: dict[str, Any], vector: Vector, message: str
    ) -> None:
        source = tmp_path / "t.tif"
        write_raster(source, picture(40, 40), **profile)
        with (
            pytest.raises(UserError, match=rf"^{re.escape(str(source))}: .*{message}"),
            open_input(Identity(), str(source), Options(vector=vector)),
        ):
            pass

    def test_the_packages_for_footprints_are_checked_at_opening(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", picture(40, 40))
        source = str(tmp_path / "t.tif")
        for vector, gsd, message in (
            (
                Vector("geojson"),
                0.3,
                r"t\.tif: has no CRS and transform that place it.*GeoJSON",
            ),
            (
                Vector("gpkg", min_area_m2=1),
                None,
                r"t\.tif: has no CRS and.*--gsd METRES",
            ),
            (Vector("gpkg", simplify_m=1), None, r"t\.tif: has no CRS .* lengths"),
        ):
            with (
                pytest.raises(UserError, match=message),
                open_input(Identity(), source, Options(vector=vector, gsd=gsd)),
            ):
                pass
        with open_input(Identity(), source, Options(vector=Vector("gpkg"))) as imagery:
            assert imagery.gsd is None
        with open_input(Identity(), source, Options(vector=Vector("gpkg"), gsd=0.3)) as imagery:
            assert imagery.gsd == 0.3


# A run that kills itself once the first of its two outputs has its final name.
KILLED = """
import os, signal, sys
from pathlib import Path
from identity import Identity
from roofseg.mapping.footprints import Vector
from roofseg.mapping.predict import Options, predict_raster
replace = Path.replace
def killed(path, target):
    replace(path, target)
    if target.parent.name == "maps":
        os.kill(os.getpid(), signal.SIGKILL)
Path.replace = killed
predict_raster(Identity(), sys.argv[1], Path(sys.argv[2]), Options(vector=Vector("gpkg")))
"""
PEAK = """
import sys
from pathlib import Path
import numpy as np
from roofseg.mapping import predict
from roofseg.sliding_window import blocks, imagery
class Bright:
    window, gsd, provenance = 256, (), {}
    def __call__(self, images):
        return images[..., 0] / np.float32(255)
blocks.STRIP_COLUMNS, imagery.GDAL_CACHE_MB = 2048, 8
predict.predict_raster(Bright(), sys.argv[1], Path(sys.argv[2]), predict.Options())
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
"""


@pytest.mark.whole
@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's peak from /proc")
def test_memory_does_not_grow_with_the_raster(tmp_path: Path) -> None:
    """Nine times the pixels need the same memory, apart from what threads happen to hold.

    The larger mask alone, one byte a pixel, would add 75 MB.
    """
    write_raster(tmp_path / "t.tif", picture(1024, 1024), tiled=True, **GEO)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    peaks = []
    for tiles in (3, 9):
        source = mosaic(tmp_path / f"{tiles}.vrt", "t.tif", 1024, tiles)
        command = [sys.executable, "-c", PEAK, str(source), str(tmp_path / f"{tiles}.tif")]
        peaks.append(float(subprocess.check_output(command, text=True, env=environment)))
        assert read(tmp_path / f"{tiles}.tif").shape == (tiles * 1024,) * 2
    assert peaks[1] - peaks[0] < 50


def mosaic(path: Path, tile: str, size: int, tiles: int) -> Path:
    """A VRT that shows one RGB tile ``tiles`` times along each side."""
    places = [(row * size, col * size) for row in range(tiles) for col in range(tiles)]
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{tile}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{size}" ySize="{size}"/>'
            f'<DstRect xOff="{col}" yOff="{row}" xSize="{size}" ySize="{size}"/></SimpleSource>'
            for row, col in places
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    side = size * tiles
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{CRS}</SRS>'
        f"<GeoTransform>621000, 0.3, 0, 3350000, 0, -0.3</GeoTransform>{bands}</VRTDataset>"
    )
    return path
