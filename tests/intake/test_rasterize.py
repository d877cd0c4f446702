from __future__ import annotations

import json
import re
import shutil
import struct
import tempfile
import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
import pyogrio.raw
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from raster_files import add_rpcs
from rasterio.transform import Affine
from shapely.geometry.base import BaseGeometry
from tiny_dataset import CRS, TRANSFORM, write_raster
from unwritable import full_disk, public_folder, read_only_folder

from roofseg.core.errors import UserError
from roofseg.intake.rasterize import (
    RasterizeStats,
    check_placement,
    find_layer,
    rasterize_footprints,
)
from roofseg.mapping.footprints import Vector, write_footprints
from roofseg.tiles.grid import Grid
from roofseg.tiles.tile import TilePair, check_tile, read_tile_mask

GEO = {"crs": CRS, "transform": TRANSFORM}
HEIGHT, WIDTH = 48, 64
# Places on the antimeridian: a CRS, and x and y there.
SEAMS = [
    ("EPSG:4326", 180, -16.5),
    ("EPSG:4326", -180, 65.0),
    ("EPSG:4167", 180, -44.0),  # New Zealand
    ("EPSG:3857", 20037508.34, -1_900_000),
    ("EPSG:3857", -20037508.34, 5_000_000),
    ("EPSG:3832", 3339584.72, -1_900_000),  # Mercator around 150 degrees east
    ("EPSG:32701", 179_715, 8_174_000),
    ("EPSG:32660", 829_000, 1_106_600),
]
FORMATS = (".gpkg", ".geojson", ".shp")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_raster(tmp_path / "tile.tif", np.zeros((HEIGHT, WIDTH, 3), np.uint8), **GEO)
    return tmp_path / "tile.tif"


def burn(vector: Path, image: Path, out: Path, layer: str | None = None) -> RasterizeStats:
    out.parent.mkdir(exist_ok=True)
    return rasterize_footprints(find_layer(vector, layer), image, out)


def at(col: float, row: float, width: float, height: float) -> shapely.Polygon:
    """A rectangle, given in pixels of the tile, in coordinates of its CRS."""
    corners = (col, row), (col + width, row + height)
    return shapely.box(*(number for corner in corners for number in TRANSFORM @ corner))


def footprints(path: Path, *geometries: BaseGeometry | None, **options: Any) -> Path:
    """Write geometries as the format of the suffix; ``to`` is the CRS that they are written in."""
    to = options.pop("to", CRS)
    path.parent.mkdir(parents=True, exist_ok=True)
    series = geopandas.GeoSeries(geometries, crs=CRS if to else None)
    layer = geopandas.GeoDataFrame({"name": "Dach"}, index=range(len(series)), geometry=series)
    (layer.to_crs(to) if to else layer).to_file(path, **options)
    return path


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with rasterio.open(path) as source:
        band: npt.NDArray[np.uint8] = source.read(1)
    return band


def expected(*windows: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """A mask that is 255 in the given windows (col, row, width, height)."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for col, row, width, height in windows:
        mask[row : row + height, col : col + width] = 255
    return mask


class TestLaws:
    @settings(max_examples=25)
    @given(
        mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)),
        turn=st.sampled_from([0.0, 33.0]),
        driver=st.sampled_from(["gpkg", "geojson"]),
    )
    def test_footprints_of_a_mask_rasterize_back_to_it(
        self, mask: npt.NDArray[np.bool_], turn: float, driver: Any
    ) -> None:
        """On upright and turned grids, directly and through EPSG:4326."""
        profile = {"crs": CRS, "transform": TRANSFORM @ Affine.rotation(turn)}
        with tempfile.TemporaryDirectory() as folder:
            names = ("m.tif", f"v.{driver}", "back.tif")
            raster, vector, out = (Path(folder) / name for name in names)
            write_raster(raster, mask.astype(np.float32), **profile)
            count = write_footprints(raster, vector, Vector(driver))
            if count == 0:
                return
            assert burn(vector, raster, out) == RasterizeStats(count, 0, 0)
            assert np.array_equal(pixels(out), mask * 255)


class TestBurn:
    @pytest.mark.parametrize("suffix", FORMATS)
    @pytest.mark.parametrize("to", [CRS, "EPSG:4326", "EPSG:3857", "EPSG:2277"])
    def test_formats_and_coordinate_systems(
        self, tmp_path: Path, image: Path, suffix: str, to: str
    ) -> None:
        court = at(5, 5, 10, 20) - at(8, 10, 4, 6)
        vector = footprints(tmp_path / f"houses{suffix}", court, at(30, 30, 8, 6), to=to)
        out = tmp_path / "msks" / "tile.tif"
        assert burn(vector, image, out) == RasterizeStats(features=2, repaired=0, skipped=0)
        mask = expected((5, 5, 10, 20), (30, 30, 8, 6))
        mask[10:16, 8:12] = 0
        assert np.array_equal(pixels(out), mask)

    def test_the_mask_is_a_tile_mask(self, tmp_path: Path, image: Path) -> None:
        out = tmp_path / "tile_mask.tif"
        burn(footprints(tmp_path / "h.gpkg", at(5, 5, 10, 20)), image, out)
        grid, _ = check_tile(TilePair("tile", "train", image, out), 32)
        assert (grid.crs, grid.transform) == (rasterio.CRS.from_string(CRS), TRANSFORM)
        assert np.array_equal(read_tile_mask(out) * 255, expected((5, 5, 10, 20)))
        with rasterio.open(out) as source:
            assert (source.count, source.dtypes[0], source.driver) == (1, "uint8", "GTiff")

    def test_a_pixel_counts_by_its_centre(self, tmp_path: Path, image: Path) -> None:
        vector = footprints(tmp_path / "h.gpkg", at(4.6, 4.4, 10, 10), at(40.1, 40.1, 0.3, 0.3))
        assert burn(vector, image, tmp_path / "m.tif").features == 2
        assert np.array_equal(pixels(tmp_path / "m.tif"), expected((5, 4, 10, 10)))

    def test_features_off_the_tile_are_ignored(self, tmp_path: Path, image: Path) -> None:
        vector = footprints(
            tmp_path / "h.gpkg",
            at(-5, -5, 10, 10),  # over its corner
            at(WIDTH, 0, 5, 5),  # beside it, at its edge
            at(900, 0, 5, 5),
        )
        assert burn(vector, image, tmp_path / "m.tif") == RasterizeStats(1, 0, 0)
        assert np.array_equal(pixels(tmp_path / "m.tif"), expected((0, 0, 5, 5)))

    def test_no_footprint_on_the_tile(self, tmp_path: Path, image: Path) -> None:
        vector = footprints(tmp_path / "h.gpkg", at(900, 0, 5, 5))
        assert burn(vector, image, tmp_path / "m.tif") == RasterizeStats(0, 0, 0)
        assert not pixels(tmp_path / "m.tif").any()

    def test_overlapping_footprints_are_their_union(self, tmp_path: Path, image: Path) -> None:
        ring = at(0, 0, 20, 20) - at(5, 5, 10, 10)
        vector = footprints(tmp_path / "h.gpkg", ring, at(4, 4, 12, 12))
        burn(vector, image, tmp_path / "m.tif")
        assert np.array_equal(pixels(tmp_path / "m.tif"), expected((0, 0, 20, 20)))

    def test_heights_parts_and_collections(self, tmp_path: Path, image: Path) -> None:
        high = shapely.force_3d(at(0, 0, 4, 4), 12.5)
        parts = shapely.MultiPolygon([at(10, 0, 4, 4), at(20, 0, 4, 4)])
        point = at(60, 40, 1, 1).centroid
        mixed = shapely.GeometryCollection([point, shapely.GeometryCollection([at(30, 0, 4, 4)])])
        vector = footprints(tmp_path / "h.gpkg", high, parts, mixed)
        assert burn(vector, image, tmp_path / "m.tif") == RasterizeStats(3, 0, 0)
        places = [(col, 0, 4, 4) for col in (0, 10, 20, 30)]
        assert np.array_equal(pixels(tmp_path / "m.tif"), expected(*places))

    def test_other_geometries_of_a_mixed_layer_are_counted(
        self, tmp_path: Path, image: Path
    ) -> None:
        house = at(5, 5, 10, 10)
        vector = footprints(
            tmp_path / "h.gpkg", house, house.centroid, shapely.LineString(house.exterior)
        )
        assert burn(vector, image, tmp_path / "m.tif") == RasterizeStats(1, 0, skipped=2)
        assert np.array_equal(pixels(tmp_path / "m.tif"), expected((5, 5, 10, 10)))

    def test_features_that_cannot_be_drawn_are_counted(self, tmp_path: Path, image: Path) -> None:
        """A polygon with a vertex outside the Earth, and a surface in 3D."""
        x, y = TRANSFORM @ (WIDTH / 2, HEIGHT / 2)
        (place,) = geopandas.GeoSeries([shapely.Point(x, y)], crs=CRS).to_crs("EPSG:4326")
        around = [(place.x - 1, place.y - 1), (place.x + 1, place.y - 1), (place.x, 1000)]
        vector = tmp_path / "h.geojson"
        footprints(vector, at(5, 5, 10, 10), to="EPSG:4326")
        layer = json.loads(vector.read_text())
        polygon = {"type": "Polygon", "coordinates": [[*around, around[0]]]}
        layer["features"].append({"type": "Feature", "properties": {}, "geometry": polygon})
        vector.write_text(json.dumps(layer))
        assert burn(vector, image, tmp_path / "m.tif") == RasterizeStats(1, 0, skipped=1)
        assert np.array_equal(pixels(tmp_path / "m.tif"), expected((5, 5, 10, 10)))

        surface = struct.pack("<BII", 1, 15, 1) + shapely.to_wkb(at(5, 5, 10, 10))
        house = shapely.to_wkb(at(20, 5, 10, 10))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # GDAL calls such surfaces unusual
            pyogrio.raw.write(
                tmp_path / "h.gpkg",
                geometry=np.array([surface, house], object),
                field_data=[],
                fields=[],
                geometry_type="Unknown",
                crs=CRS,
            )
        assert burn(tmp_path / "h.gpkg", image, tmp_path / "m.tif") == RasterizeStats(
            1, 0, skipped=1
        )
        assert np.array_equal(pixels(tmp_path / "m.tif"), expected((20, 5, 10, 10)))

    def test_rings_that_are_not_closed(self, tmp_path: Path, image: Path) -> None:
        corners = list(at(5, 5, 10, 10).exterior.coords)[:4]
        collection = {
            "type": "FeatureCollection",
            "crs": {"type": "name", "properties": {"name": CRS}},
            "features": [
                {
                    "type": "Feature",
                    "properties": {},
                    "geometry": {"type": "Polygon", "coordinates": [corners]},
                }
            ],
        }
        (tmp_path / "h.geojson").write_text(json.dumps(collection))
        assert burn(tmp_path / "h.geojson", image, tmp_path / "m.tif").features == 1
        assert np.array_equal(pixels(tmp_path / "m.tif"), expected((5, 5, 10, 10)))

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_null_and_empty_geometries_are_ignored(
        self, tmp_path: Path, image: Path, suffix: str
    ) -> None:
        vector = footprints(tmp_path / f"h{suffix}", None, at(5, 5, 9, 9), shapely.Polygon())
        assert burn(vector, image, tmp_path / "m.tif") == RasterizeStats(1, 0, 0)

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_invalid_geometries_are_repaired_and_counted(
        self, tmp_path: Path, image: Path, suffix: str
    ) -> None:
        square = np.array(at(0, 0, 10, 10).exterior.coords)[:4]
        bowtie = shapely.Polygon(square[[0, 2, 1, 3]])
        twice = shapely.MultiPolygon([at(20, 0, 10, 10), at(25, 5, 10, 10)])
        outside = shapely.Polygon(at(40, 0, 9, 9).exterior, [at(52, 2, 3, 3).exterior])
        vector = footprints(tmp_path / f"h{suffix}", bowtie, twice, outside, at(0, 30, 5, 5))
        burnt = burn(vector, image, tmp_path / "m.tif")
        mask = pixels(tmp_path / "m.tif")
        assert (burnt.features, burnt.skipped) == (4, 0)
        # A Shapefile has rings but no parts; GDAL arranges the rings as it reads.
        if suffix != ".shp":
            assert burnt.repaired == 3
            assert mask[0:10, 20:30].all()
            assert mask[5:15, 25:35].all()
            assert (mask[0:9, 40:49] == 255).all()
        assert 35 < np.count_nonzero(mask[:, :15][:10]) < 65  # half of the square
        assert (mask[30:35, :5] == 255).all()

    def test_across_the_antimeridian(self, tmp_path: Path) -> None:
        profile = {"crs": "EPSG:32660", "transform": Affine(50, 0, 833_000, 0, -50, 100_100)}
        write_raster(tmp_path / "t.tif", np.zeros((2, 40), np.uint8), **profile)
        mask = np.zeros((2, 40), np.uint8)
        mask[:, ::2] = 255
        write_raster(tmp_path / "m.tif", (mask > 0).astype(np.float32), **profile)
        write_footprints(tmp_path / "m.tif", tmp_path / "v.geojson", Vector("geojson"))
        assert burn(tmp_path / "v.geojson", tmp_path / "t.tif", tmp_path / "b.tif").features == 20
        assert np.array_equal(pixels(tmp_path / "b.tif"), mask)

    @given(
        mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=4, max_side=9)),
        place=st.sampled_from(SEAMS),
        driver=st.sampled_from(["gpkg", "geojson", "parquet"]),
        to=st.sampled_from([None, "EPSG:4326", "EPSG:3857"]),
    )
    def test_no_footprint_is_lost_on_either_side_of_the_antimeridian(
        self, mask: npt.NDArray[np.bool_], place: tuple[str, float, float], driver: Any, to: Any
    ) -> None:
        """In tiles across the edge of their CRS and in others, from footprints in several CRSs."""
        crs, x, y = place
        pixel = 3e-6 if abs(x) < 1000 else 0.3
        transform = Affine(pixel, 0, x - pixel * mask.shape[1] // 2, 0, -pixel, y)
        with tempfile.TemporaryDirectory() as folder:
            names = ("m.tif", f"v.{driver}", "back.tif")
            raster, vector, out = (Path(folder) / name for name in names)
            write_raster(raster, mask.astype(np.float32), crs=crs, transform=transform)
            count = write_footprints(raster, vector, Vector(driver))
            if count == 0:
                return
            if to and driver == "gpkg":  # with vertices that alternate between both sides
                vector = vector.with_suffix(".fgb")
                geopandas.read_file(raster.parent / names[1]).to_crs(to).to_file(vector)
            assert burn(vector, raster, out).features == count
            assert np.array_equal(pixels(out), mask * 255)

    def test_names_with_spaces_and_other_letters(self, tmp_path: Path) -> None:
        folder = tmp_path / "Größe 東京"
        write_raster(folder / "mein Bild.tif", np.zeros((HEIGHT, WIDTH), np.uint8), **GEO)
        for suffix in FORMATS:
            vector = footprints(folder / f"Häuser im Süden{suffix}", at(5, 5, 10, 10))
            burn(vector, folder / "mein Bild.tif", folder / "die Maske.tif")
            assert np.array_equal(pixels(folder / "die Maske.tif"), expected((5, 5, 10, 10)))


class TestLayers:
    def test_one_of_several_layers_must_be_named(self, tmp_path: Path, image: Path) -> None:
        vector = footprints(tmp_path / "map.gpkg", at(0, 0, 5, 5), layer="Häuser")
        footprints(vector, at(9, 9, 5, 5), layer="parks")
        with pytest.raises(UserError, match=r"map\.gpkg: has several layers: 'Häuser', 'parks'"):
            burn(vector, image, tmp_path / "m.tif")
        assert not (tmp_path / "m.tif").exists()
        burn(vector, image, tmp_path / "m.tif", layer="parks")
        assert np.array_equal(pixels(tmp_path / "m.tif"), expected((9, 9, 5, 5)))
        with pytest.raises(UserError, match="found 'Häuser', 'parks'; expected the layer 'roads'"):
            burn(vector, image, tmp_path / "m.tif", layer="roads")

    def test_tables_without_geometries_are_ignored(self, tmp_path: Path) -> None:
        """QGIS keeps its styles in such a table."""
        vector = footprints(tmp_path / "map.gpkg", at(0, 0, 5, 5), layer="houses")
        styles = pd.DataFrame({"style": ["red"]})
        pyogrio.write_dataframe(styles, vector, layer="layer_styles", append=True)
        assert find_layer(vector).name == "houses"
        pyogrio.write_dataframe(styles, tmp_path / "styles.gpkg")
        with pytest.raises(UserError, match="found no layer with geometries; expected a layer of"):
            find_layer(tmp_path / "styles.gpkg")

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_points_and_lines(self, tmp_path: Path, suffix: str) -> None:
        house = at(0, 0, 5, 5)
        for geometry, kind in (
            (house.centroid, "Point"),
            (shapely.LineString(house.exterior), "LineString"),
            (shapely.force_3d(shapely.LineString(house.exterior), 3), "LineString Z"),
        ):
            vector = footprints(tmp_path / f"h{suffix}", geometry)
            with pytest.raises(UserError, match=rf"layer 'h': holds geometries of type {kind};"):
                find_layer(vector)

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_no_features(self, tmp_path: Path, suffix: str) -> None:
        empty = geopandas.GeoDataFrame({"name": ["x"]}, geometry=[at(0, 0, 1, 1)], crs=CRS)[:0]
        pyogrio.write_dataframe(empty, tmp_path / f"h{suffix}", geometry_type="Polygon")
        with pytest.raises(UserError, match="layer 'h': has no features; expected polygons"):
            find_layer(tmp_path / f"h{suffix}")


class TestPlacement:
    """Footprints from longitudes and latitudes onto tiles of the British National Grid."""

    def tile(self, pixel: float) -> Grid:
        transform = Affine(pixel, 0, 530_000, 0, -pixel, 180_000)
        return Grid(40, 40, rasterio.CRS.from_epsg(27700), transform)

    def test_footprints_that_may_lie_off_need_consent(self, tmp_path: Path) -> None:
        tile = self.tile(0.5)
        layer = find_layer(footprints(tmp_path / "h.gpkg", at(0, 0, 5, 5), to="EPSG:4326"))
        message = (
            r"h\.gpkg: transformed from EPSG:4326 to EPSG:27700, footprints may be off by 2 m "
            r"\(4 px\), because PROJ lacks the grid uk_os_OSTN15_NTv2_OSGBtoETRS\.tif, which .*"
        )
        with pytest.raises(UserError, match=message + "Or accept it: --allow-ballpark"):
            check_placement([(layer, tile)], allow_ballpark=False)
        (remark,) = check_placement([(layer, tile)] * 2, allow_ballpark=True)
        assert re.search(message.removesuffix(", which .*"), remark)

    def test_others_do_not(self, tmp_path: Path) -> None:
        layer = find_layer(footprints(tmp_path / "h.gpkg", at(0, 0, 5, 5), to="EPSG:4326"))
        grids = [
            self.tile(2.5),
            Grid(9, 9, rasterio.CRS.from_epsg(32614), TRANSFORM),
            Grid(9, 9, None, None),
        ]
        assert not check_placement([(layer, grid) for grid in grids], allow_ballpark=False)


class TestErrors:
    def refused(self, vector: Path, image: Path, message: str) -> None:
        """Check that the message matches and that no file is left."""
        out = image.parent / "new" / "mask.tif"
        with pytest.raises(UserError, match=message):
            burn(vector, image, out)
        assert not out.parent.exists() or list(out.parent.iterdir()) == []

    @pytest.mark.filterwarnings("ignore:'crs' was not provided")
    @pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
    def test_footprints_without_crs(self, tmp_path: Path, image: Path, suffix: str) -> None:
        vector = footprints(tmp_path / f"h{suffix}", at(0, 0, 5, 5), to=None)
        self.refused(vector, image, rf"h\{suffix}, layer 'h': has no CRS, so it cannot be placed")

    @pytest.mark.parametrize(
        ("profile", "missing"),
        [
            ({"crs": CRS}, "no transform"),
            ({"transform": TRANSFORM}, "no CRS"),
            ({}, "no CRS and no transform"),
            ({"crs": CRS, "transform": Affine(0.3, 0, 0, 0.3, 0, 0)}, "no transform"),
        ],
    )
    def test_an_image_without_georeference(
        self, tmp_path: Path, profile: dict[str, Any], missing: str
    ) -> None:
        write_raster(tmp_path / "t.tif", np.zeros((9, 9), np.uint8), **profile)
        vector = footprints(tmp_path / "h.gpkg", at(0, 0, 5, 5))
        self.refused(vector, tmp_path / "t.tif", rf"t\.tif: has {missing}, so nothing tells")

    def test_an_image_with_rpcs_alone(self, tmp_path: Path) -> None:
        write_raster(tmp_path / "t.tif", np.zeros((9, 9), np.uint8))
        add_rpcs(tmp_path / "t.tif")
        vector = footprints(tmp_path / "h.gpkg", at(0, 0, 5, 5))
        self.refused(
            vector, tmp_path / "t.tif", r"t\.tif: its RPCs .* warp it first.*gdalwarp -rpc"
        )

    def test_a_crs_that_cannot_be_transformed(self, tmp_path: Path) -> None:
        local = 'LOCAL_CS["site",UNIT["metre",1]]'
        write_raster(tmp_path / "t.tif", np.zeros((9, 9), np.uint8), crs=local, transform=TRANSFORM)
        vector = footprints(tmp_path / "h.gpkg", at(0, 0, 5, 5))
        self.refused(
            vector, tmp_path / "t.tif", r"h\.gpkg: its CRS EPSG:32614 cannot be transformed to"
        )

    def test_an_image_outside_its_crs(self, tmp_path: Path) -> None:
        write_raster(
            tmp_path / "t.tif", np.zeros((9, 9), np.uint8), crs="EPSG:4326", transform=TRANSFORM
        )
        vector = footprints(tmp_path / "h.gpkg", at(0, 0, 5, 5))
        self.refused(
            vector, tmp_path / "t.tif", "cannot be transformed to EPSG:4326, the CRS of .*t.tif"
        )

    @pytest.mark.parametrize("suffix", FORMATS)
    @pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9])
    def test_broken_footprints(self, tmp_path: Path, image: Path, suffix: str, keep: float) -> None:
        houses = [at(col, row, 2, 2) for col in range(0, 60, 4) for row in range(0, 40, 4)]
        vector = footprints(tmp_path / f"h{suffix}", *houses)
        data = vector.read_bytes()
        vector.write_bytes(data[: int(keep * len(data))])
        self.refused(vector, image, rf"h\{suffix}: cannot be read; it is missing, cut off")

    @pytest.mark.parametrize("seed", range(20))
    def test_garbled_footprints(self, tmp_path: Path, image: Path, seed: int) -> None:
        """Any 30 wrong bytes give a UserError or a whole mask, never a traceback."""
        rng = np.random.default_rng(seed)
        suffix = FORMATS[seed % 3]
        vector = footprints(tmp_path / f"h{suffix}", *(at(col, 4, 2, 2) for col in range(0, 60, 4)))
        data = bytearray(vector.read_bytes())
        for place in rng.integers(0, len(data), 30):
            data[place] = rng.integers(0, 256)
        vector.write_bytes(bytes(data))
        message = None
        try:
            burn(vector, image, tmp_path / "m.tif")
        except UserError as error:
            message = str(error)
        assert (tmp_path / "m.tif").exists() == (message is None)
        assert message is None or str(vector) in message

    def test_names_in_another_encoding(self, tmp_path: Path, image: Path) -> None:
        vector = footprints(tmp_path / "h.geojson", at(8, 8, 8, 8))
        text = vector.read_text().replace('"name":', '"höhe":')
        vector.write_bytes(text.encode("latin1"))
        self.refused(vector, image, r"h\.geojson: holds names that are not UTF-8.*iconv -f LATIN1")
        vector.write_text(text)
        burn(vector, image, tmp_path / "out" / "tile.tif")

    def test_a_shapefile_without_its_index(self, tmp_path: Path, image: Path) -> None:
        vector = footprints(tmp_path / "h.shp", at(0, 0, 5, 5))
        vector.with_suffix(".shx").unlink()
        self.refused(vector, image, r"h\.shp: cannot be read.*\.shx")

    def test_a_shapefile_needs_its_projection(self, tmp_path: Path, image: Path) -> None:
        vector = footprints(tmp_path / "h.shp", at(0, 0, 5, 5))
        vector.with_suffix(".prj").unlink()
        self.refused(vector, image, r"has no CRS.*\.prj")

    def test_missing_files(self, tmp_path: Path, image: Path) -> None:
        self.refused(tmp_path / "none.gpkg", image, r"none\.gpkg: cannot be read; it is missing")
        vector = footprints(tmp_path / "h.gpkg", at(0, 0, 5, 5))
        self.refused(vector, tmp_path / "none.tif", r"none\.tif: cannot be read")
        self.refused(image, image, r"tile\.tif: cannot be read; .* not a vector file")
        image.write_bytes(image.read_bytes()[:100])
        self.refused(vector, image, r"tile\.tif: cannot be read")

    def test_a_read_only_folder(self, tmp_path: Path, image: Path) -> None:
        vector = footprints(tmp_path / "h.gpkg", at(0, 0, 5, 5))
        with public_folder() as readable:
            copies = [shutil.copy(path, readable) for path in (vector, image)]
            with read_only_folder() as folder, pytest.raises(OSError, match="cannot be written"):
                burn(Path(copies[0]), Path(copies[1]), folder / "mask.tif")

    @pytest.mark.parametrize("missing", [1, 0.5])
    def test_a_full_disk(self, tmp_path: Path, image: Path, missing: float) -> None:
        """GDAL raises no error for a full disk; it prints a line on stderr."""
        houses = [at(col, row, 2, 2) for col in range(0, 60, 4) for row in range(0, 40, 4)]
        vector = footprints(tmp_path / "h.gpkg", *houses)
        out = tmp_path / "m.tif"
        burn(vector, image, out)
        size = out.stat().st_size
        room = int(size - missing if missing >= 1 else size * missing)
        with full_disk(room), pytest.raises(OSError, match=r"cannot be written.*m\.tif"):
            burn(vector, image, out)
