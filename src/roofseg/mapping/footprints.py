"""Building footprints as polygons, from a raster of building probabilities.

The raster is read in strips and the polygons are written in batches, in every format: memory grows
with the width of the raster, not with its height or the number of footprints.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely
from pyproj.exceptions import ProjError
from rasterio.transform import Affine
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.mapping.area import Floats, Ground, Polygons, measure_ground
from roofseg.mapping.polygonize import Component, Strip, polygonize
from roofseg.mapping.vector_files import GEOMETRY, Driver, write_layer
from roofseg.tiles.grid import Grid, read_grid
from roofseg.tiles.ground import is_on_earth
from roofseg.tiles.rasters import open_raster

STRIP_PIXELS = 2**24  # of the raster in memory at a time
BATCH = 10_000  # footprints in memory at a time
# Smallest tolerance for buildingregulariser in pixels, as its documentation advises: with one
# pixel, the staircase of a slanted wall remains.
REGULARISE_PX = 2
SCHEMA = pa.schema(
    [pa.field("area_m2", pa.float64()), pa.field("mean_probability", pa.float64()), GEOMETRY]
)

Straighten = Callable[[Polygons, float], Polygons]


@dataclass(frozen=True)
class Vector:
    """The format and shape of footprints.

    Attributes:
        driver: ``gpkg`` (GeoPackage), ``geojson`` (RFC 7946) or ``parquet`` (GeoParquet 1.1).
        min_area_m2: leave out footprints whose pixels cover a smaller area.
        simplify_m: tolerance in metres of Douglas-Peucker, which keeps the topology of each polygon
            (neighbours may then overlap by up to the tolerance); 0 keeps the outlines of the
            pixels.
        regularise: straighten walls and square corners with the package buildingregulariser.
            Polygons that it would break or drop are kept unchanged.
    """

    driver: Driver
    min_area_m2: float = 0.0
    simplify_m: float = 0.0
    regularise: bool = False


def write_footprints(
    raster: Path,
    out: Path,
    vector: Vector,
    *,
    gsd: float | None = None,
    threshold: float = 0.5,
    provenance: Mapping[str, str] | None = None,
) -> int:
    """Write the footprints in a raster as polygons to the new file ``out``; returns their number.

    A footprint is a valid Polygon, with holes, around building pixels that are connected through
    their sides (4-connected). Its columns are area_m2 (null if neither a CRS nor ``gsd`` gives
    it) and mean_probability over its pixels. Areas are those of the polygons as written, see
    `roofseg.mapping.area.measure_ground`. Coordinates are in the raster's CRS, or EPSG:4326 in
    GeoJSON; without a CRS, in the units of the raster's transform; without a transform, in pixels
    from the top-left corner: x to the right, y downwards.

    Args:
        raster: one band of float32 probabilities in [0, 1], NaN where there is no data.
        vector: see `Vector`.
        gsd: metres per pixel; used only if the raster has no CRS that gives lengths.
        threshold: lowest probability that counts as building.
        provenance: stored as metadata (see `roofseg.mapping.vector_files.write_layer`).

    Raises:
        UserError: the raster cannot be read; see also `choose_ground` and `load_regulariser`
        OSError: ``out`` cannot be written
    """
    straighten = load_regulariser() if vector.regularise else None
    with open_raster(raster) as source:
        grid, block_rows = read_grid(source), source.block_shapes[0][0]
    ground = choose_ground(str(raster), grid, vector, gsd)
    shape = _Shape(grid.transform or Affine.identity(), ground, vector, straighten)

    def batches() -> Iterator[pa.RecordBatch]:
        components = polygonize(_strips(raster, grid, block_rows, threshold))
        while batch := list(islice(components, BATCH)):
            yield pa.record_batch(shape.columns(batch), schema=SCHEMA)

    return write_layer(
        out,
        vector.driver,
        batches(),
        schema=SCHEMA,
        crs=grid.crs.to_string() if grid.crs and grid.transform else None,
        metadata=provenance or {},
    )


def choose_ground(name: str, grid: Grid, vector: Vector, gsd: float | None) -> Ground | None:
    """Choose how to measure the ground: see `roofseg.mapping.area.measure_ground`.

    Raises UserError, which begins with ``name``, if the raster's CRS or transform is broken, does
    not suit GeoJSON, or does not give the lengths (metres) that ``vector`` needs.
    """
    transform = grid.transform or Affine.identity()
    crs = grid.crs if grid.transform else None
    if not 0 < abs(transform.determinant) < math.inf:
        raise UserError(
            f"{name}: its transform {tuple(transform)[:6]} gives pixels no area. Georeference it "
            "again, for example with `gdal_edit.py -a_ullr`."
        )
    on_earth = is_on_earth(crs)
    if vector.driver == "geojson" and not on_earth:
        raise UserError(
            f"{name}: has no CRS and transform that place it on Earth, but GeoJSON is in "
            "EPSG:4326. Georeference it (for example with `gdal_edit.py -a_srs ... -a_ullr "
            "...`), or use --vector gpkg or parquet, which take other coordinates."
        )
    try:
        ground = measure_ground(crs, transform, grid.width, grid.height, gsd)
    except (ValueError, ProjError) as error:
        raise UserError(
            f"{name}: its CRS is {crs and crs.to_string()}, but {error}. Set the right one, for "
            "example with `gdal_edit.py -a_srs`."
        ) from None
    beyond = max(abs((transform @ corner)[1]) for corner in grid.corners)
    if vector.driver == "geojson" and crs and crs.is_geographic and beyond > 90 + 1e-9:
        raise UserError(
            f"{name}: reaches the latitude {beyond:g}, beyond the pole, which GeoJSON cannot hold. "
            "Use --vector gpkg or parquet."
        )
    if ground is None and (vector.min_area_m2 or vector.simplify_m or vector.regularise):
        raise UserError(
            f"{name}: has no CRS and transform that give lengths and areas, which --min-area, "
            "--simplify and --regularise need. Give --gsd METRES, the size of a pixel, or "
            "georeference it (for example with `gdal_edit.py -a_srs ... -a_ullr ...`)."
        )
    return ground


def _strips(raster: Path, grid: Grid, block_rows: int, threshold: float) -> Iterator[Strip]:
    """Read building masks and probabilities in strips of about STRIP_PIXELS, in whole blocks."""
    rows = max(1, STRIP_PIXELS // grid.width)
    if rows > block_rows:
        rows -= rows % block_rows
    for row in range(0, grid.height, rows):
        window = Window(0, row, grid.width, min(rows, grid.height - row))
        with open_raster(raster) as source:
            probability = source.read(1, window=window)
        yield probability >= threshold, probability


@dataclass(frozen=True)
class _Shape:
    """Turns components into footprints.

    ``transform`` maps pixels to the raster's coordinates; ``ground`` maps coordinates to metres.
    """

    transform: Affine
    ground: Ground | None
    vector: Vector
    straighten: Straighten | None

    def columns(self, components: Sequence[Component]) -> list[pa.Array]:
        """The columns of `SCHEMA` for a batch, without footprints below the smallest area."""
        outlines = np.array([component.polygon for component in components], object)
        polygons: Polygons = shapely.transform(
            outlines, lambda x, y: self.transform @ (x, y), interleaved=False
        )
        pixels = np.array([component.pixels for component in components])
        sums = np.array([component.probability for component in components])
        areas = np.full(len(polygons), np.nan)
        if self.ground is not None:
            areas = self.ground.areas(polygons)
            # Tolerate rounding: 100 pixels of 0.3 m are 9 m².
            large = areas >= self.vector.min_area_m2 * (1 - 1e-9)
            polygons, areas = polygons[large], areas[large]
            pixels, sums = pixels[large], sums[large]
            if len(polygons) and (self.vector.simplify_m or self.straighten):
                pixel_m = math.sqrt(areas.sum() / pixels.sum())
                polygons = self._reshape(polygons, self.ground.scales(polygons), pixel_m)
                areas = self.ground.areas(polygons)
        return [
            pa.array(areas, from_pandas=True),  # NaN becomes null
            pa.array(sums / pixels),
            pa.array(shapely.to_wkb(shapely.orient_polygons(polygons)), pa.binary()),
        ]

    def _reshape(self, polygons: Polygons, scales: Floats, pixel_m: float) -> Polygons:
        """Simplify and regularise polygons; ``scales`` (N, 2) convert coordinates to metres.

        Polygons that would become invalid are kept unchanged.
        """
        metric = _scaled(polygons, scales)
        if self.vector.simplify_m:
            metric = shapely.simplify(metric, self.vector.simplify_m)
        if self.straighten:
            metric = self.straighten(metric, max(self.vector.simplify_m, REGULARISE_PX * pixel_m))
        shaped = _scaled(metric, 1 / scales)
        kind = shapely.get_type_id(shaped)
        sound = (kind == shapely.GeometryType.POLYGON) & shapely.is_valid(shaped)
        return np.where(sound & ~shapely.is_empty(shaped), shaped, polygons)


def _scaled(polygons: Polygons, scales: Floats) -> Polygons:
    coordinates, index = shapely.get_coordinates(polygons, return_index=True)
    scaled: Polygons = shapely.set_coordinates(polygons.copy(), coordinates * scales[index])
    return scaled


def load_regulariser() -> Straighten:
    """Load the function that straightens polygons; UserError without buildingregulariser."""
    try:
        from buildingregulariser import regularize_geodataframe
        from geopandas import GeoDataFrame
    except ImportError:
        raise UserError(
            "--regularise: needs the package buildingregulariser, which is not installed. Install "
            "it with `pip install 'roofseg[regularise]'`, or leave the option out."
        ) from None

    def straighten(polygons: Polygons, tolerance_m: float) -> Polygons:
        """Regularise polygons in metres; a polygon that is dropped or split becomes None."""
        frame = GeoDataFrame({"place": np.arange(len(polygons))}, geometry=polygons)
        with warnings.catch_warnings():
            # The package warns about polygons that it returns unchanged, which is intended here.
            warnings.simplefilter("ignore", UserWarning)
            straight = regularize_geodataframe(
                frame,
                simplify_tolerance=tolerance_m,
                parallel_threshold=2 * tolerance_m,  # the ratio of its defaults
                num_cores=1,  # a process per core costs more than it saves for few polygons
                include_metadata=True,  # otherwise it calls a deprecated function of pandas
            ).drop_duplicates("place", keep=False)
        regular = np.full(len(polygons), None)
        regular[straight["place"].to_numpy()] = straight.geometry.to_numpy()
        return regular

    return straighten
