from __future__ import annotations

import math
import re
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from rasterio.features import rasterize
from rasterio.transform import Affine
from tiny_dataset import CRS, TRANSFORM, write_raster
from unwritable import full_disk, public_folder, read_only_folder

from roofseg.core.errors import UserError
from roofseg.mapping import footprints
from roofseg.mapping.area import Plane
from roofseg.mapping.footprints import SUFFIXES, Driver, write_footprints
from roofseg.mapping.polygonize import Component

GEO = {"crs": CRS, "transform": TRANSFORM}
PIXEL = 0.3**2
# A building with a court, and two that meet at a corner: 84, 20 and 80 pixels.
MASK = np.zeros((60, 80), np.uint8)
MASK[5:15, 10:20] = 255
MASK[8:12, 12:16] = 0
MASK[30:40, 50:52] = 255
MASK[40:50, 52:60] = 255
PROBABILITY = np.where(MASK, np.linspace(0.5, 1, 80), 0.25).astype(np.float32)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    write_raster(tmp_path / "mask.tif", MASK, **GEO)
    return tmp_path / "mask.tif"


@pytest.fixture
def probability(tmp_path: Path) -> Path:
    write_raster(tmp_path / "probability.tif", PROBABILITY, **GEO)
    return tmp_path / "probability.tif"


def read(path: Path) -> geopandas.GeoDataFrame:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path)


def found(raster: Path, driver: Driver = "gpkg", **options: Any) -> geopandas.GeoDataFrame:
    """The footprints in a raster, through a file, sorted by area."""
    out = raster.with_name(f"found{SUFFIXES[driver]}")
    count = write_footprints(raster, out, driver=driver, **options)
    layer = read(out)
    assert len(layer) == count
    assert layer.is_valid.all()
    assert (layer.geom_type == "Polygon").all()
    if not count:  # GeoJSON states no columns then
        return layer.assign(area_m2=0.0)
    return layer.sort_values("area_m2", ignore_index=True)


def written(raster: Path, pixels: npt.NDArray[np.generic], **profile: Any) -> Path:
    write_raster(raster, pixels, **{**GEO, **profile})
    return raster


class TestLaws:
    @settings(max_examples=30)
    @given(
        mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)),
        driver=st.sampled_from(list(SUFFIXES)),
        turn=st.sampled_from([0.0, 33.0]),
    )
    def test_footprints_rasterize_back_to_the_mask_and_keep_its_area(
        self, mask: npt.NDArray[np.bool_], driver: Driver, turn: float
    ) -> None:
        transform = TRANSFORM @ Affine.rotation(turn)
        with tempfile.TemporaryDirectory() as folder:
            raster = Path(folder) / "mask.tif"
            layer = found(written(raster, mask.astype(np.uint8) * 255, transform=transform), driver)
        assert layer["area_m2"].sum() == pytest.approx(mask.sum() * PIXEL, rel=1e-6)
        back = np.zeros(mask.shape, np.uint8)
        if len(layer):
            shapes = layer.to_crs(CRS).geometry
            back = rasterize(shapes, out_shape=mask.shape, transform=transform, all_touched=False)
        assert np.array_equal(back, mask)
        if not turn and driver != "geojson" and len(layer):
            assert layer.area.to_numpy() == pytest.approx(layer["area_m2"].to_numpy())

    @settings(max_examples=20)
    @given(mask=arrays(bool, (12, 12)), tolerance=st.sampled_from([0.4, 1.0, 5.0]))
    def test_simplified_footprints_stay_valid_and_near(
        self, mask: npt.NDArray[np.bool_], tolerance: float
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            raster = written(Path(folder) / "mask.tif", mask.astype(np.uint8))
            whole, simple = found(raster), found(raster, simplify_m=tolerance)
        assert len(whole) == len(simple)
        assert simple.area.to_numpy() == pytest.approx(simple["area_m2"].to_numpy())
        if len(whole):
            outlines = (layer.geometry.union_all() for layer in (whole, simple))
            assert shapely.hausdorff_distance(*outlines) <= tolerance + 1e-6
            assert simple.count_coordinates().sum() <= whole.count_coordinates().sum()


class TestColumns:
    @pytest.mark.parametrize("driver", list(SUFFIXES))
    def test_area_and_mean_probability(self, mask: Path, probability: Path, driver: Driver) -> None:
        layer = found(mask, driver, probability=probability)
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

    def test_a_mask_alone_has_no_probability(self, mask: Path) -> None:
        assert found(mask).columns.tolist() == ["area_m2", "geometry"]

    def test_masks_of_0_and_1(self, tmp_path: Path) -> None:
        for dtype in ("uint8", "int16", "uint32"):
            assert len(found(written(tmp_path / "m.tif", (MASK > 0).astype(dtype)))) == 3

    def test_nodata_is_no_building_and_has_no_probability(self, tmp_path: Path) -> None:
        chances = PROBABILITY.copy()
        chances[:20] = np.nan
        assert len(found(written(tmp_path / "p.tif", chances))) == 2
        assert len(found(written(tmp_path / "nan.tif", chances * np.nan))) == 0
        chances[:20] = 9
        raster = written(tmp_path / "p9.tif", chances, nodata=9)
        assert len(found(raster)) == 2
        mask = np.where(np.arange(80) < 40, 255, MASK // 255).astype(np.uint8)
        of_mask = written(tmp_path / "m.tif", mask, nodata=255)
        assert len(found(of_mask)) == 2
        layer = found(written(tmp_path / "m2.tif", MASK), probability=raster)
        assert layer["mean_probability"].isna().tolist() == [False, False, True]

    def test_small_footprints_are_left_out(self, mask: Path) -> None:
        assert len(found(mask, min_area_m2=7.2)) == 2
        assert len(found(mask, min_area_m2=7.21)) == 1
        assert len(found(mask, min_area_m2=100)) == 0

    def test_exactly_the_smallest_area_is_kept(self, tmp_path: Path) -> None:
        """Coordinates are rounded: a pixel of 0.3 m has 0.08999999995809048 m²."""
        assert len(found(written(tmp_path / "m.tif", np.eye(9, dtype=np.uint8)))) == 9
        assert len(found(tmp_path / "m.tif", min_area_m2=0.09)) == 9

    @pytest.mark.parametrize("driver", list(SUFFIXES))
    def test_an_empty_mask_makes_an_empty_layer(self, tmp_path: Path, driver: Driver) -> None:
        raster = written(tmp_path / "m.tif", MASK * 0)
        out = tmp_path / f"empty{SUFFIXES[driver]}"
        assert write_footprints(raster, out, driver=driver) == 0
        assert len(read(out)) == 0

    def test_provenance_is_kept(self, mask: Path) -> None:
        provenance = {"ROOFSEG_ATTEMPT": "unet", "ROOFSEG_VERSION": "0.1.0"}
        found(mask, provenance=provenance)
        info = pyogrio.read_info(mask.with_name("found.gpkg"))
        assert info["layer_metadata"] == provenance

    def test_names_with_spaces_and_other_letters(self, tmp_path: Path) -> None:
        raster = written(tmp_path / "Größe 東京" / "mein Bild.tif", MASK)
        for driver in SUFFIXES:
            assert len(found(raster, driver)) == 3

    def test_footprints_do_not_depend_on_strips(
        self, mask: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = found(mask, probability=None)
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
    @pytest.mark.parametrize("driver", list(SUFFIXES))
    def test_degrees_and_web_mercator(self, tmp_path: Path, crs: str, driver: Driver) -> None:
        """The same buildings as on a plane, though a unit there is no metre."""
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
        # The court is 1.2 m wide; its corners go at a tolerance of metres, not of degrees.
        simple = found(raster, driver, simplify_m=0.2)
        assert simple["area_m2"].to_numpy() == pytest.approx(layer["area_m2"].to_numpy(), rel=1e-4)

    def test_without_crs_coordinates_are_pixels_downwards(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "m.png", MASK)
        layer = found(tmp_path / "m.png", gsd=0.5)
        assert layer.crs is None
        assert layer["area_m2"].tolist() == pytest.approx([5, 20, 21])
        assert layer.geometry[2].bounds == (10, 5, 20, 15)
        for driver in ("gpkg", "parquet"):
            unknown = found(tmp_path / "m.png", driver)
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
        stairs = np.tril(np.ones((40, 40), np.uint8))
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
        raster = written(tmp_path / "m.tif", rough.astype(np.uint8))
        (before,) = found(raster, min_area_m2=1).geometry
        layer = found(raster, min_area_m2=1, regularise=True)
        (after,) = layer.geometry
        assert len(after.exterior.coords) == 5
        assert after.area / after.minimum_rotated_rectangle.area == pytest.approx(1, rel=1e-3)
        assert after.intersection(before).area / after.union(before).area > 0.95
        assert layer["area_m2"].tolist() == pytest.approx([after.area])

    def test_regularise_keeps_polygons_that_it_would_split(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(589)  # of which one has two parts that hardly hang together
        cells = rng.random((7, 7)) < 0.58
        blots = np.kron(cells, np.ones((rng.integers(1, 5), rng.integers(1, 5)), np.uint8))
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
            Affine.identity(), Plane(1.0), 0, 0, lambda polygons, metres: np.array(straight, object)
        )
        columns = shape.columns([Component(square, 16, 0.0)] * len(straight))
        found = shapely.from_wkb(columns["geometry"].to_numpy(zero_copy_only=False))
        assert shapely.equals(found, [straight[0], *[square] * 4]).all()
        assert columns["area_m2"].to_pylist() == [4, 16, 16, 16, 16]

    def test_without_buildingregulariser(self, mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "buildingregulariser", None)
        with pytest.raises(UserError, match="`pip install buildingregulariser`"):
            found(mask, regularise=True)
        assert len(found(mask)) == 3


class TestErrors:
    def refused(self, raster: Path, message: str, driver: Driver = "gpkg", **options: Any) -> None:
        """It says so, names the file, and leaves nothing behind."""
        out = raster.parent / "new" / f"out{SUFFIXES[driver]}"
        with pytest.raises(UserError, match=message):
            write_footprints(raster, out, driver=driver, **options)
        assert not out.parent.exists() or list(out.parent.iterdir()) == []

    @pytest.mark.parametrize("keep", [0, 4, 200, 0.5])
    def test_a_broken_raster(self, tmp_path: Path, mask: Path, keep: float) -> None:
        noise = np.random.default_rng(0).integers(0, 2, (300, 300)).astype(np.uint8)
        raster = written(tmp_path / "noise.tif", noise)
        data = raster.read_bytes()
        raster.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
        self.refused(raster, r"noise\.tif: cannot be read")

    def test_a_raster_that_is_cut_off_near_its_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Footprints from its first strips are not left behind."""
        noise = np.random.default_rng(0).integers(0, 2, (300, 300)).astype(np.uint8)
        raster = written(tmp_path / "noise.tif", noise)
        raster.write_bytes(raster.read_bytes()[:-3000])
        monkeypatch.setattr(footprints, "STRIP_PIXELS", 20 * 300)
        for driver in SUFFIXES:
            self.refused(raster, r"noise\.tif: cannot be read", driver)

    def test_a_broken_probability_is_named(self, mask: Path, probability: Path) -> None:
        probability.write_bytes(probability.read_bytes()[:-3000])
        self.refused(mask, r"probability\.tif: cannot be read", probability=probability)

    def test_a_missing_raster(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.tif", r"none\.tif: cannot be read")
        (tmp_path / "text.tif").write_text("no raster")
        self.refused(tmp_path / "text.tif", r"text\.tif: cannot be read")

    def test_bands_and_types(self, tmp_path: Path) -> None:
        rgb = written(tmp_path / "rgb.tif", np.zeros((9, 9, 3), np.uint8))
        self.refused(rgb, r"rgb\.tif: 3 bands of uint8; expected one band")
        waves = written(tmp_path / "waves.tif", np.zeros((9, 9), np.complex64))
        self.refused(waves, r"waves\.tif: .*complex64; expected")

    @pytest.mark.parametrize(
        ("values", "shown"), [((0, 128), "0, 128"), ((1, 255), "1, 255"), ((0, 1, 2), "0, 1, 2")]
    )
    def test_soft_masks(self, tmp_path: Path, values: tuple[int, ...], shown: str) -> None:
        pixels = np.resize(np.array(values, np.uint8), (9, 9))
        self.refused(
            written(tmp_path / "m.tif", pixels),
            rf"m\.tif: rows 0 to 8 hold the values {shown}; exp",
        )

    def test_a_mask_that_changes_its_value(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(footprints, "STRIP_PIXELS", 9)
        pixels = np.repeat(np.array([[0], [1], [255]], np.uint8), 9, axis=1)
        self.refused(written(tmp_path / "m.tif", pixels), "rows 2 to 2 hold the values 1, 255;")

    def test_values_that_are_no_probabilities(self, tmp_path: Path, mask: Path) -> None:
        values = PROBABILITY * 8 - 4
        values[0, 0] = np.nan
        logits = written(tmp_path / "logits.tif", values)
        self.refused(logits, r"logits\.tif: holds values from -2 to 2\.98734; expected probab")
        self.refused(mask, r"logits\.tif: holds values", probability=logits)
        self.refused(mask, r"mask\.tif: holds integers; expected prob", probability=mask)

    @pytest.mark.parametrize(
        ("pixels", "profile", "what"),
        [
            (PROBABILITY[:50], {}, "height is 50, but .*mask.tif has 60"),
            (PROBABILITY[:, 1:], {}, "width is 79"),
            (PROBABILITY, {"crs": "EPSG:32615"}, "crs is .*32615"),
            (PROBABILITY, {"transform": TRANSFORM @ Affine.scale(2)}, "transform is"),
        ],
    )
    def test_probabilities_on_another_grid(
        self,
        tmp_path: Path,
        mask: Path,
        pixels: npt.NDArray[np.float32],
        profile: dict[str, Any],
        what: str,
    ) -> None:
        other = written(tmp_path / "p.tif", pixels, **profile)
        self.refused(mask, rf"p\.tif: its {what}", probability=other)

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
        raster = written(tmp_path / "m.tif", MASK, crs="EPSG:4326")  # but metres
        self.refused(raster, r"m\.tif: its CRS is EPSG:4326, but .*621000.* is outside the area")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("gsd", 0.0),
            ("gsd", -0.3),
            ("gsd", math.nan),
            ("threshold", 0.0),
            ("threshold", 1.5),
            ("threshold", math.nan),
            ("min_area_m2", -1.0),
            ("simplify_m", math.inf),
        ],
    )
    def test_numbers_out_of_range(self, mask: Path, key: str, value: float) -> None:
        self.refused(mask, f"{key}: {re.escape(str(value))}; expected", **{key: value})

    def test_a_read_only_folder(self) -> None:
        with public_folder() as readable:
            raster = written(readable / "m.tif", MASK)
            with read_only_folder() as folder, pytest.raises(UserError, match="cannot be written"):
                write_footprints(raster, folder / "out.gpkg", driver="gpkg")

    def test_a_full_disk_leaves_the_older_file(self, mask: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.gpkg"
        write_footprints(mask, out, driver="gpkg", min_area_m2=7.3)
        older = out.read_bytes()
        with full_disk(50_000), pytest.raises(UserError, match=r"out\.gpkg: cannot be written"):
            write_footprints(mask, out, driver="gpkg")
        assert out.read_bytes() == older
        assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.tif", "out.gpkg"]


@pytest.mark.parametrize("driver", list(SUFFIXES))
def test_memory_does_not_grow_with_the_height(
    tmp_path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprints, "STRIP_PIXELS", 16 * 64)
    monkeypatch.setattr(footprints, "BATCH", 20)
    block = np.random.default_rng(0).integers(0, 2, (32, 64)).astype(np.uint8)
    peaks = []
    for times in (1, 1, 10):  # the first one for what is allocated once
        raster = written(tmp_path / "m.tif", np.tile(block, (times, 1)), tiled=False)
        tracemalloc.start()
        write_footprints(raster, tmp_path / f"out{SUFFIXES[driver]}", driver=driver)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]
