"""Building footprints as polygons, from a raster of building masks or probabilities.

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
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.mapping.area import Ellipsoid, Plane, Polygons, measure_ground
from roofseg.mapping.polygonize import Component, Strip, polygonize
from roofseg.mapping.vector_files import GEOMETRY, SUFFIXES, Driver, write_layer
from roofseg.tiles.rasters import check_mask_values, describe_bands, open_raster, read_grid

__all__ = ["SUFFIXES", "Driver", "Georeference", "write_footprints"]

STRIP_PIXELS = 2**24  # of the raster in memory at a time
BATCH = 10_000  # footprints in memory at a time
# Smallest tolerance for buildingregulariser in pixels, as its documentation advises: with one
# pixel, the staircase of a slanted wall remains.
REGULARISE_PX = 2

Band = np.ma.MaskedArray[Any, np.dtype[Any]]
Lengths = npt.NDArray[np.float64]
Straighten = Callable[[Polygons, float], Polygons]


def write_footprints(
    raster: Path,
    out: Path,
    *,
    driver: Driver,
    probability: Path | None = None,
    gsd: float | None = None,
    threshold: float = 0.5,
    min_area_m2: float = 0.0,
    simplify_m: float = 0.0,
    regularise: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> int:
    """Write the footprints in a raster as polygons; returns their number. Errors leave no file.

    A footprint is a valid Polygon, with holes, around building pixels that are connected through
    their sides (4-connected). Its columns are area_m2 (null if neither a CRS nor ``gsd`` gives
    it) and, with probabilities, mean_probability over its pixels. Coordinates are in the raster's
    CRS, or EPSG:4326 in GeoJSON; without a CRS, in the units of the raster's transform; without a
    transform, in pixels from the top-left corner: x to the right, y downwards.

    Args:
        raster: one band, either a mask (integers: 0 background, 1 or 255 building) or a probability
            (floats in [0, 1]; building where it is at least ``threshold``). Nodata is not building.
        out: the file to write.
        driver: ``gpkg`` (GeoPackage), ``geojson`` (RFC 7946) or ``parquet`` (GeoParquet 1.1);
            ``out`` must have its suffix in SUFFIXES.
        probability: a raster of probabilities on the same grid, for mean_probability; not needed if
            ``raster`` itself holds probabilities.
        gsd: metres per pixel; used only if the raster has no CRS that gives lengths.
        threshold: see ``raster``.
        min_area_m2: leave out footprints whose pixels cover a smaller area.
        simplify_m: tolerance in metres of Douglas-Peucker, which keeps the topology of each polygon
            (neighbours may then overlap by up to the tolerance); 0 keeps the outlines of the
            pixels.
        regularise: straighten walls and square corners with the package buildingregulariser.
            Polygons that it would break or drop are kept unchanged.
        provenance: stored as metadata (see `roofseg.mapping.vector_files.write_layer`).

    Areas are those of the polygons as written: in the plane where the CRS is projected and true to
    area, else on the ellipsoid (see `roofseg.mapping.area.measure_ground`).

    Raises:
        UserError: a raster cannot be read, or is neither mask nor probability; the two have
            different grids; a CRS (for GeoJSON) or ``gsd`` (for lengths and areas) is needed and
            missing; the raster lies outside its CRS; a number is out of range; buildingregulariser
            is not installed; ``out`` is a folder, has another suffix, or cannot be written (this is
            a NotWrittenError).
    """
    _check_numbers(gsd, threshold, min_area_m2, simplify_m)
    straighten = load_regulariser() if regularise else None
    source = _Header.read(raster)
    if probability is not None:
        _check_grid(source, _Header.read(probability))
    elif source.floats:
        probability = raster
    place = source.georeference
    lengths = bool(min_area_m2 or simplify_m or regularise)
    measure = place.measure(driver, gsd=gsd, lengths=lengths)

    fields = [pa.field("area_m2", pa.float64()), GEOMETRY]
    if probability is not None:
        fields.insert(1, pa.field("mean_probability", pa.float64()))
    schema = pa.schema(fields)
    shape = _Shape(place.transform, measure, min_area_m2, simplify_m, straighten)

    def batches() -> Iterator[pa.RecordBatch]:
        components = polygonize(_strips(source, probability, threshold))
        while batch := list(islice(components, BATCH)):
            columns = shape.columns(batch)
            yield pa.record_batch([columns[name] for name in schema.names], schema=schema)

    return write_layer(
        out,
        driver,
        batches(),
        schema=schema,
        crs=place.crs and place.crs.to_string(),
        metadata=provenance or {},
    )


@dataclass(frozen=True)
class Georeference:
    """The position of a raster, from its header.

    ``name`` names the raster in messages; ``crs`` is None if the coordinates are pixels.
    """

    name: str
    width: int
    height: int
    crs: CRS | None
    transform: Affine

    def measure(
        self, driver: Driver, *, gsd: float | None, lengths: bool
    ) -> Plane | Ellipsoid | None:
        """Choose how to measure the ground: see `roofseg.mapping.area.measure_ground`.

        Raises UserError if footprints cannot be written as ``driver``, or if ``lengths`` (metres)
        are needed but unknown.
        """
        if not 0 < abs(self.transform.determinant) < math.inf:
            raise UserError(
                f"{self.name}: its transform {tuple(self.transform)[:6]} gives pixels no area. "
                "Georeference it again, for example with `gdal_edit.py -a_ullr`."
            )
        on_earth = self.crs and (self.crs.is_projected or self.crs.is_geographic)
        if driver == "geojson" and not on_earth:
            raise UserError(
                f"{self.name}: has no CRS and transform that place it on Earth, but GeoJSON is in "
                "EPSG:4326. Georeference it (for example with `gdal_edit.py -a_srs ... -a_ullr "
                "...`), or use --vector gpkg or parquet, which take other coordinates."
            )
        try:
            measure = measure_ground(self.crs, self.transform, self.width, self.height, gsd)
        except (ValueError, ProjError) as error:
            raise UserError(
                f"{self.name}: its CRS is {self.crs and self.crs.to_string()}, but {error}. Set "
                "the right one, for example with `gdal_edit.py -a_srs`."
            ) from None
        if measure is None and lengths:
            raise UserError(
                f"{self.name}: has no CRS and transform that give lengths and areas, which "
                "--min-area, --simplify and --regularise need. Give --gsd METRES, the size of a "
                "pixel, or georeference it (for example with `gdal_edit.py -a_srs ... -a_ullr "
                "...`)."
            )
        return measure


@dataclass(frozen=True)
class _Header:
    """The header of a raster with one band."""

    path: Path
    block_rows: int
    floats: bool
    georeference: Georeference

    @classmethod
    def read(cls, path: Path) -> _Header:
        with open_raster(path) as source:
            dtype = np.dtype(source.dtypes[0])
            if source.count != 1 or dtype.kind not in "buif":
                raise UserError(
                    f"{path}: {describe_bands(source)}; expected one band, a mask of "
                    "integers or probabilities as floats."
                )
            grid = read_grid(source)
            crs = grid.crs if grid.transform else None
            place = Georeference(str(path), grid.width, grid.height, crs, source.transform)
            return cls(path, source.block_shapes[0][0], dtype.kind == "f", place)


def _check_numbers(
    gsd: float | None, threshold: float, min_area_m2: float, simplify_m: float
) -> None:
    if gsd is not None and not (0 < gsd < math.inf):
        raise UserError(f"gsd: {gsd}; expected metres per pixel, more than 0.")
    if not 0 < threshold <= 1:
        raise UserError(f"threshold: {threshold}; expected a probability, more than 0, at most 1.")
    for name, value in (("min_area_m2", min_area_m2), ("simplify_m", simplify_m)):
        if not (0 <= value < math.inf):
            raise UserError(f"{name}: {value}; expected a number that is not negative.")


def _check_grid(source: _Header, probability: _Header) -> None:
    if not probability.floats:
        raise UserError(
            f"{probability.path}: holds integers; expected probabilities as floats in [0, 1]."
        )
    for name in ("width", "height", "crs", "transform"):
        one, other = (getattr(header.georeference, name) for header in (source, probability))
        if one != other:
            raise UserError(
                f"{probability.path}: its {name} is {other!r}, but {source.path} has {one!r}. "
                "Both rasters must have the same grid."
            )


def _strips(source: _Header, probability: Path | None, threshold: float) -> Iterator[Strip]:
    """Read building masks and probabilities in strips of about STRIP_PIXELS.

    Strips consist of whole blocks if these are small enough.

    Pixels without data have the probability NaN.
    """
    width, height = source.georeference.width, source.georeference.height
    rows = max(1, STRIP_PIXELS // width)
    if rows > source.block_rows:
        rows -= rows % source.block_rows
    value = 0  # the value that marks building; 0 until a strip has building
    for row in range(0, height, rows):
        window = Window(0, row, width, min(rows, height - row))
        band = _read(source.path, window)
        if source.floats:
            _check_probability(source.path, band)
            building = (band >= threshold).filled(False)
        else:
            values = band.filled(0)
            value = check_mask_values(source.path, values, row, value)
            building = values != 0
        probabilities = None
        if probability is not None:
            if probability != source.path:
                band = _read(probability, window)
                _check_probability(probability, band)
            probabilities = band.filled(np.nan)
        yield building, probabilities


def _read(path: Path, window: Window) -> Band:
    """Read the band of a raster: (h, W), masked where it has no data."""
    with open_raster(path) as source:
        band: Band = source.read(1, window=window, masked=True)
    return band


def _check_probability(path: Path, band: Band) -> None:
    values = band.compressed()
    values = values[~np.isnan(values)]
    if values.size and (values.min() < 0 or values.max() > 1):
        raise UserError(
            f"{path}: holds values from {values.min():g} to {values.max():g}; expected "
            "probabilities from 0 to 1 (neither logits nor percentages)."
        )


@dataclass(frozen=True)
class _Shape:
    """Turns components into footprints; the other fields are options of `write_footprints`.

    ``transform`` maps pixels to the raster's coordinates; ``measure`` maps coordinates to metres.
    """

    transform: Affine
    measure: Plane | Ellipsoid | None
    min_area_m2: float
    simplify_m: float
    straighten: Straighten | None

    def columns(self, components: Sequence[Component]) -> dict[str, pa.Array]:
        """The columns of a batch of footprints, without those smaller than ``min_area_m2``."""
        outlines = np.array([component.polygon for component in components], object)
        polygons: Polygons = shapely.transform(
            outlines, lambda x, y: self.transform @ (x, y), interleaved=False
        )
        pixels = np.array([component.pixels for component in components])
        sums = np.array([component.probability for component in components])
        areas = np.full(len(polygons), np.nan)
        if self.measure is not None:
            areas = self.measure.areas(polygons)
            large = areas >= self.min_area_m2 * (1 - 1e-9)  # 100 pixels of 0.3 m are 9 m²
            polygons, areas = polygons[large], areas[large]
            pixels, sums = pixels[large], sums[large]
            if len(polygons) and (self.simplify_m or self.straighten):
                pixel_m = math.sqrt(areas.sum() / pixels.sum())
                polygons = self._reshape(polygons, self.measure.scales(polygons), pixel_m)
                areas = self.measure.areas(polygons)
        return {
            "area_m2": pa.array(areas, from_pandas=True),
            "mean_probability": pa.array(sums / pixels, from_pandas=True),
            "geometry": pa.array(shapely.to_wkb(shapely.orient_polygons(polygons)), pa.binary()),
        }

    def _reshape(self, polygons: Polygons, scales: Lengths, pixel_m: float) -> Polygons:
        """Simplify and regularise polygons; ``scales`` (N, 2) convert coordinates to metres.

        Polygons that would become invalid are kept unchanged.
        """
        metric = _scaled(polygons, scales)
        if self.simplify_m:
            metric = shapely.simplify(metric, self.simplify_m)
        if self.straighten:
            tolerance_m = max(self.simplify_m, REGULARISE_PX * pixel_m)
            metric = self.straighten(metric, tolerance_m)
        shaped = _scaled(metric, 1 / scales)
        kind = shapely.get_type_id(shaped)
        sound = (kind == shapely.GeometryType.POLYGON) & shapely.is_valid(shaped)
        return np.where(sound & ~shapely.is_empty(shaped), shaped, polygons)


def _scaled(polygons: Polygons, scales: Lengths) -> Polygons:
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
            "it with `pip install buildingregulariser`, or leave the option out."
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
