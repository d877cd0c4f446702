from __future__ import annotations

import math
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any, get_args

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from rasterio.features import rasterize
from rasterio.transform import Affine
from tiny_dataset import CRS, TRANSFORM, write_raster

from roofseg.core.errors import UserError
from roofseg.mapping import footprints
from roofseg.mapping.area import Plane
from roofseg.mapping.footprints import Vector, choose_ground, write_footprints
from roofseg.mapping.polygonize import Component
from roofseg.mapping.vector_files import Driver
from roofseg.tiles.grid import Grid

GEO = {"crs": CRS, "transform": TRANSFORM}
DRIVERS = get_args(Driver)
PIXEL = 0.3**2
# A building with a court, and two that meet at a corner: 84, 20 and 80 pixels.
MASK = np.zeros((60, 80), np.float32)
MASK[5:15, 10:20] = 1
MASK[8:12, 12:16] = 0
MASK[30:40, 50:52] = 1
MASK[40:50, 52:60] = 1
PROBABILITY = np.where(MASK, np.linspace(0.5, 1, 80), 0.25).astype(np.float32)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return written(tmp_path / "mask.tif", MASK)


@pytest.fixture
def probability(tmp_path: Path) -> Path:
    return written(tmp_path / "probability.tif", PROBABILITY)


def read(path: Path) -> geopandas.GeoDataFrame:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path)


def write(
    raster: Path,
    out: Path,
    *,
    gsd: float | None = None,
    threshold: float = 0.5,
    provenance: dict[str, str] | None = None,
    **shape: Any,
) -> int:
    """Write footprints in the format of the suffix of ``out``; ``shape`` is that of `Vector`."""
    vector = Vector(out.suffix[1:], **shape)  # type: ignore[arg-type]
    return write_footprints(
        raster, out, vector, gsd=gsd, threshold=threshold, provenance=provenance
    )


def found(raster: Path, driver: Driver = "gpkg", **options: Any) -> geopandas.GeoDataFrame:
    """The footprints in a raster, through a file, sorted by area."""
    out = raster.with_name(f"found.{driver}")
    out.unlink(missing_ok=True)
    count = write(raster, out, **options)
    layer = read(out)
    assert len(layer) == count
    assert layer.is_valid.all()
    assert (layer.geom_type == "Polygon").all()
    if not count:  # GeoJSON states no columns then
        return layer.assign(area_m2=0.0)
    return layer.sort_values("area_m2", ignore_index=True)


def written(raster: Path, pixels: npt.NDArray[np.generic], **profile: Any) -> Path:
    write_raster(raster, pixels.astype(np.float32), **{**GEO, **profile})
    return raster


class TestLaws:
    @settings(max_examples=30)
    @given(
        mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)),
        driver=st.sampled_from(DRIVERS),
        turn=st.sampled_from([0.0, 33.0]),
    )
    def test_footprints_rasterize_back_to_the_mask_and_keep_its_area(
        self, mask: npt.NDArray[np.bool_], driver: Driver, turn: float
    ) -> None:
        transform = TRANSFORM @ Affine.rotation(turn)
        with tempfile.TemporaryDirectory() as folder:
            raster = Path(folder) / "mask.tif"
            layer = found(written(raster, mask, transform=transform), driver)
        assert layer["area_m2"].sum() == pytest.approx(mask.sum() * PIXEL, rel=1e-6)
        back = np.zeros(mask.shape, np.uint8)
        if len(layer):
            shapes = layer.to_crs(CRS).geometry
            back = rasterize(shapes, out_shape=mask.shape, transform=transform, all_touched=False)
        assert np.array_equal(back, mask)
        if not turn and driver != "geojson" and len(layer):
            assert layer.area.to_numpy() == pytest.approx(layer["area_m2"].to_numpy())

    @pytest.mark.whole
    @settings(max_examples=20)
    @given(mask=arrays(bool, (12, 12)), tolerance=st.sampled_from([0.4, 1.0, 5.0]))
    def test_simplified_footprints_stay_valid_and_near(
        self, mask: npt.NDArray[np.bool_], tolerance: float
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            raster = written(Path(folder) / "mask.tif", mask)
            whole, simple = found(raster), found(raster, simplify_m=tolerance)
        assert len(whole) == len(simple)
        assert simple.area.to_numpy() == pytest.approx(simple["area_m2"].to_numpy())
        if len(whole):
            outlines = (layer.geometry.union_all() for layer in (whole, simple))
            assert shapely.hausdorff_distance(*outlines) <= tolerance + 1e-6
            assert simple.count_coordinates().sum() <= whole.count_coordinates().sum()


class TestColumns:
    @pytest.mark.parametrize("driver", DRIVERS)
    def test_area_and_mean_probability(self, probability: Path, driver: Driver) -> None:
        layer = found(probability, driver)
        assert layer.columns.tolist() == ["area_m2", "mean_probability", "geometry"]
        assert layer["area_m2"].to_numpy() == pytest.approx(np.array([20, 80, 84]) * PIXEL)
        building = [PROBABILITY[30:40, 50:52], PROBABILITY[40:50, 52:60], PROBABILITY[5:15, 10:20]]
        means = [part[part >= 0.5].mean() for part in building]
        assert layer["mean_probability"].to_numpy() == pytest.approx(np.array(means), rel=1e-5)
        assert [len(polygon.interiors) for polygon in layer.geometry] == [0, 0, 1]

    def test_a_raster_of_probabilities_is_cut_at_the_threshold(self, probability: Path) -> None:
        layer = found(probability)
        assert layer["area_m2"].to_numpy() == pytest.approx(np.array([20, 80, 84]) * PIXEL)
        assert layer["mean_probability"].min() > 0.5
        high = found(probability, threshold=float(PROBABILITY[30, 51]))  # at least
        assert high["area_m2"].to_numpy() == pytest.approx(np.array([10, 80]) * PIXEL)
        assert len(found(probability, threshold=1.0)) == 0

    def test_nodata_is_no_building(self, tmp_path: Path) -> None:
        chances = PROBABILITY.copy()
        chances[:20] = np.nan
        assert len(found(written(tmp_path / "p.tif", chances))) == 2
        assert len(found(written(tmp_path / "nan.tif", chances * np.nan))) == 0

    def test_small_footprints_are_left_out(self, mask: Path) -> None:
        assert len(found(mask, min_area_m2=7.2)) == 2
        assert len(found(mask, min_area_m2=7.21)) == 1
        assert len(found(mask, min_area_m2=100)) == 0

    def test_exactly_the_smallest_area_is_kept(self, tmp_path: Path) -> None:
        """Coordinates are rounded: a pixel of 0.3 m has 0.08999999995809048 m²."""
        assert len(found(written(tmp_path / "m.tif", np.eye(9)))) == 9
        assert len(found(tmp_path / "m.tif", min_area_m2=0.09)) == 9

    @pytest.mark.parametrize("driver", DRIVERS)
    def test_an_empty_mask_makes_an_empty_layer(self, tmp_path: Path, driver: Driver) -> None:
        raster = written(tmp_path / "m.tif", MASK * 0)
        out = tmp_path / f"empty.{driver}"
        assert write(raster, out) == 0
        assert len(read(out)) == 0

    def test_provenance_is_kept(self, mask: Path) -> None:
        provenance = {"ROOFSEG_ATTEMPT": "unet", "ROOFSEG_VERSION": "0.1.0"}
        found(mask, provenance=provenance)
        info = pyogrio.read_info(mask.with_name("found.gpkg"))
        assert info["layer_metadata"] == provenance

    def test_names_with_spaces_and_other_letters(self, tmp_path: Path) -> None:
        raster = written(tmp_path / "Größe 東京" / "mein Bild.tif", MASK)
        for driver in DRIVERS:
            assert len(found(raster, driver)) == 3

    def test_footprints_do_not_depend_on_strips(
        self, mask: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = found(mask)
        for rows in (1, 7, 13):
            monkeypatch.setattr(footprints, "STRIP_PIXELS", rows * MASK.shape[1])
            monkeypatch.setattr(footprints, "BATCH", 1)
            cut = found(mask)
            assert cut.normalize().to_wkb().tolist() == whole.normalize().to_wkb().tolist()
            assert cut["area_m2"].tolist() == pytest.approx(whole["area_m2"].tolist())


class TestGround:
    def test_a_crs_in_feet(self, tmp_path: Path) -> None:
        transform = Affine(1, 0, 3.1e6, 0, -1, 1.008e7)  # Texas Central, US survey feet
        raster = written(tmp_path / "m.tif", MASK, crs="EPSG:2277", transform=transform)
        foot = 1200 / 3937
        assert found(raster)["area_m2"].tolist() == pytest.approx(
            [20 * foot**2, 80 * foot**2, 84 * foot**2]
        )
        # A step of 10 ft is kept at 3.0 m, and falls at 3.1 m.
        assert len(found(raster, simplify_m=2)) == 3

    @pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
    @pytest.mark.parametrize("driver", DRIVERS)
    def test_degrees_and_web_mercator(self, tmp_path: Path, crs: str, driver: Driver) -> None:
        """The areas are those on the plane, although a unit is not a metre."""
        corner = shapely.Point(621000, 3350000)
        (place,) = geopandas.GeoSeries([corner], crs=CRS).to_crs(crs)
        shrink = math.cos(math.radians(30.2757))
        radius = 6378137 * (1 if crs == "EPSG:3857" else math.pi / 180)
        unit = 0.3 / shrink if crs == "EPSG:3857" else 0.3 / radius
        across = unit if crs == "EPSG:3857" else unit / shrink
        transform = Affine(across, 0, place.x, 0, -unit, place.y)
        raster = written(tmp_path / "m.tif", MASK, crs=crs, transform=transform)
        layer = found(raster, driver)
        assert layer["area_m2"].to_numpy() == pytest.approx(
            np.array([20, 80, 84]) * PIXEL, rel=0.01
        )
        # A tolerance of 0.2 m leaves the court, 1.2 m wide, nearly as it is.
        simple = found(raster, driver, simplify_m=0.2)
        assert simple["area_m2"].to_numpy() == pytest.approx(layer["area_m2"].to_numpy(), rel=1e-4)

    def test_without_crs_coordinates_are_pixels_downwards(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "m.tif", MASK)
        layer = found(tmp_path / "m.tif", gsd=0.5)
        assert layer.crs is None
        assert layer["area_m2"].tolist() == pytest.approx([5, 20, 21])
        assert layer.geometry[2].bounds == (10, 5, 20, 15)
        for driver in ("gpkg", "parquet"):
            unknown = found(tmp_path / "m.tif", driver)
            assert unknown["area_m2"].isna().all()
            assert len(unknown) == 3

    def test_a_world_file_without_crs_places_them(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "m.tif", MASK, transform=TRANSFORM)
        layer = found(tmp_path / "m.tif", gsd=0.3)
        assert layer["area_m2"].tolist() == pytest.approx([20 * PIXEL, 80 * PIXEL, 84 * PIXEL])
        assert layer.geometry[2].bounds == pytest.approx((621003, 3349995.5, 621006, 3349998.5))

    def test_a_crs_overrules_the_gsd(self, mask: Path) -> None:
        assert found(mask, gsd=7.0)["area_m2"].sum() == pytest.approx(184 * PIXEL)


class TestShape:
    def test_simplify_takes_metres(self, tmp_path: Path) -> None:
        stairs = np.tril(np.ones((40, 40)))
        raster = written(tmp_path / "m.tif", stairs)
        whole, simple = found(raster), found(raster, simplify_m=0.25)
        assert whole.count_coordinates().sum() == 83
        assert simple.count_coordinates().sum() < 10
        assert simple.area.tolist() == pytest.approx(simple["area_m2"].tolist())
        assert found(raster, simplify_m=0.1).count_coordinates().sum() == 83

    def test_regularise_squares_a_rough_rectangle(self, tmp_path: Path) -> None:
        rows, cols = np.mgrid[:200, :200]
        turned = np.exp(0.4j) * ((cols - 100) + 1j * (rows - 100))
        rough = (abs(turned.real) < 60) & (abs(turned.imag) < 30)
        raster = written(tmp_path / "m.tif", rough)
        (before,) = found(raster, min_area_m2=1).geometry
        layer = found(raster, min_area_m2=1, regularise=True)
        (after,) = layer.geometry
        assert len(after.exterior.coords) == 5
        assert after.area / after.minimum_rotated_rectangle.area == pytest.approx(1, rel=1e-3)
        assert after.intersection(before).area / after.union(before).area > 0.95
        assert layer["area_m2"].tolist() == pytest.approx([after.area])

    def test_regularise_keeps_polygons_that_it_would_split(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(589)  # gives a blot whose two parts are joined by a thin neck
        cells = rng.random((7, 7)) < 0.58
        blots = np.kron(cells, np.ones((rng.integers(1, 5), rng.integers(1, 5))))
        raster = written(tmp_path / "m.tif", blots)
        plain, regular = found(raster), found(raster, regularise=True)
        assert len(plain) == len(regular)
        assert not regular.geom_equals(plain).all()
        covered = plain.intersection(regular.union_all()).area / plain.area
        assert covered.min() > 0.3

    def test_polygons_that_would_become_invalid_are_kept_unchanged(self) -> None:
        square = shapely.box(0, 0, 4, 4)
        straight = [
            shapely.box(1, 1, 3, 3),
            shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)]),  # crosses itself
            shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 2, 3, 3)]),
            shapely.Polygon(),
            None,
        ]
        shape = footprints._Shape(
            Affine.identity(),
            Plane(1.0),
            Vector("gpkg"),
            lambda polygons, metres: np.array(straight, object),
        )
        areas, _, encoded = shape.columns([Component(square, 16, 0.0)] * len(straight))
        found = shapely.from_wkb(encoded.to_numpy(zero_copy_only=False))
        assert shapely.equals(found, [straight[0], *[square] * 4]).all()
        assert areas.to_pylist() == [4, 16, 16, 16, 16]

    def test_without_buildingregulariser(self, mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "buildingregulariser", None)
        with pytest.raises(UserError, match=r"`pip install 'roofseg\[regularise\]'`"):
            found(mask, regularise=True)
        assert len(found(mask)) == 3


class TestErrors:
    def refused(self, raster: Path, message: str, driver: Driver = "gpkg", **options: Any) -> None:
        with pytest.raises(UserError, match=message):
            write(raster, raster.with_name(f"out.{driver}"), **options)

    def test_geojson_beyond_a_pole(self) -> None:
        grid = Grid(40, 40, rasterio.CRS.from_epsg(4326), Affine(2, 0, 0, 0, -2, 91))
        says = r"^t\.tif: reaches the latitude 91, beyond the pole, .* Use --vector gpkg or parquet"
        with pytest.raises(UserError, match=says):
            choose_ground("t.tif", grid, Vector("geojson"), None)

    @pytest.mark.parametrize("keep", [0, 4, 200, 0.5])
    def test_a_broken_raster(self, tmp_path: Path, mask: Path, keep: float) -> None:
        noise = np.random.default_rng(0).integers(0, 2, (300, 300))
        raster = written(tmp_path / "noise.tif", noise)
        data = raster.read_bytes()
        raster.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
        self.refused(raster, r"noise\.tif: cannot be read")

    @pytest.mark.whole
    def test_a_raster_that_is_cut_off_near_its_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 2, (300, 300))
        raster = written(tmp_path / "noise.tif", noise)
        raster.write_bytes(raster.read_bytes()[:-3000])
        monkeypatch.setattr(footprints, "STRIP_PIXELS", 20 * 300)
        for driver in DRIVERS:
            self.refused(raster, r"noise\.tif: cannot be read", driver)

    def test_a_missing_raster(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.tif", r"none\.tif: cannot be read")
        (tmp_path / "text.tif").write_text("no raster")
        self.refused(tmp_path / "text.tif", r"text\.tif: cannot be read")

    @pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["metre",1]]'])
    def test_geojson_needs_a_place_on_earth(self, tmp_path: Path, crs: str | None) -> None:
        raster = written(tmp_path / "m.tif", MASK, crs=crs)
        self.refused(raster, r"m\.tif: has no CRS .*GeoJSON", "geojson", gsd=0.3)
        assert len(found(raster, gsd=0.3)) == 3

    @pytest.mark.parametrize(
        "options", [{"min_area_m2": 1.0}, {"simplify_m": 1.0}, {"regularise": True}]
    )
    def test_metres_need_a_gsd_where_there_is_no_crs(
        self, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        write_raster(tmp_path / "m.tif", MASK)
        self.refused(tmp_path / "m.tif", r"m\.tif: has no CRS .*--gsd METRES", **options)
        assert len(found(tmp_path / "m.tif", gsd=0.1, min_area_m2=0.8)) == 2

    def test_a_crs_without_transform_is_none(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "m.tif", MASK, crs=CRS)
        self.refused(tmp_path / "m.tif", r"m\.tif: has no CRS and transform", "geojson")
        layer = found(tmp_path / "m.tif")
        assert layer.crs is None
        assert layer["area_m2"].isna().all()

    def test_a_transform_without_area(self, tmp_path: Path) -> None:
        raster = written(tmp_path / "m.tif", MASK, transform=Affine(0.3, 0, 0, 0.3, 0, 0))
        self.refused(raster, r"m\.tif: its transform \(0\.3, .* gives pixels no area", gsd=0.3)

    def test_a_raster_of_another_planet(self, tmp_path: Path) -> None:
        raster = written(tmp_path / "m.tif", MASK, crs="IAU_2015:49910")  # Mars
        self.refused(raster, r"m\.tif: its CRS is ")

    def test_a_raster_outside_its_crs(self, tmp_path: Path) -> None:
        raster = written(tmp_path / "m.tif", MASK, crs="EPSG:4326")  # not degrees
        self.refused(raster, r"m\.tif: its CRS is EPSG:4326, but .*621000.* is outside the area")


@pytest.mark.whole
@pytest.mark.parametrize("driver", DRIVERS)
def test_memory_does_not_grow_with_the_height(
    tmp_path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprints, "STRIP_PIXELS", 16 * 64)
    monkeypatch.setattr(footprints, "BATCH", 20)
    block = np.random.default_rng(0).integers(0, 2, (32, 64))
    peaks = []
    for times in (1, 1, 10):  # the first run allocates what later runs reuse
        raster = written(tmp_path / "m.tif", np.tile(block, (times, 1)), tiled=False)
        tracemalloc.start()
        write(raster, tmp_path / f"out{len(peaks)}.{driver}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]
