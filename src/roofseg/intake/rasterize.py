"""Rasterise vector footprints onto the grid of a tile, as its mask."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyogrio
import pyogrio.raw
import pyproj
import rasterio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write
from roofseg.core.images import Image
from roofseg.tiles.rasters import GDAL_CACHE_MB, open_raster

Polygons = npt.NDArray[np.object_]  # shapely geometries
STRIP_PIXELS = 2**24
BLOCK = 256
# A layer has no polygons if its geometry type contains one of these; a mixed layer is "Unknown".
NO_POLYGONS = ("Point", "LineString", "CircularString")


@dataclass(frozen=True)
class FootprintLayer:
    """A layer of polygons: its file, its name, and its CRS as a code or WKT."""

    path: Path
    name: str
    crs: str


@dataclass(frozen=True)
class RasterizeStats:
    """Numbers of the features that were rasterised onto a tile, repaired, or skipped.

    ``features`` is the number of features with a polygon that covers part of the tile; ``repaired``
    of them were invalid (for example, the outline crosses itself) and were repaired. ``skipped``
    features meet the tile but have no polygon that can be drawn in its CRS: points, lines, surfaces
    in 3D, broken coordinates.
    """

    features: int
    repaired: int
    skipped: int


def find_layer(footprints: Path, name: str | None = None) -> FootprintLayer:
    """Find the polygon layer of a file: the one called ``name``, or the only one with geometries.

    Raises UserError as `rasterize_footprints` does. Reads no features.
    """
    with _reading(footprints):
        kinds = {str(layer): kind for layer, kind in pyogrio.list_layers(footprints) if kind}
        if name is None and len(kinds) == 1:
            name = next(iter(kinds))
        if name not in kinds:
            found = ", ".join(map(repr, kinds)) or "no layer with geometries"
            if name is None and kinds:
                command = shlex.join([str(footprints), next(iter(kinds))])
                raise UserError(
                    f"{footprints}: has several layers: {found}. Choose one with --layer, or "
                    "save it as a separate file, for example with `ogr2ogr -f GPKG "
                    f"footprints.gpkg {command}`."
                )
            wanted = "a layer of polygons" if name is None else f"the layer {name!r}"
            raise UserError(f"{footprints}: found {found}; expected {wanted}.")
        info = pyogrio.read_info(footprints, layer=name)
    place = f"{footprints}, layer {name!r}"
    if not info["features"]:
        raise UserError(f"{place}: has no features; expected polygons of buildings.")
    if any(word in info["geometry_type"] for word in NO_POLYGONS):
        raise UserError(
            f"{place}: holds geometries of type {info['geometry_type']}; expected polygons of "
            "buildings."
        )
    if info["crs"] is None:
        raise UserError(
            f"{place}: has no CRS, so it cannot be placed on a tile. Set the CRS it was drawn in, "
            "for example with `ogr2ogr -a_srs`. (A Shapefile keeps its CRS in a .prj file beside "
            "it.)"
        )
    return FootprintLayer(footprints, name, info["crs"])


def rasterize_footprints(
    footprints: Path, image: Path, out: Path, *, layer: str | None = None
) -> RasterizeStats:
    """Write the mask of a tile from vector footprints; after an error there is no mask.

    Works in strips of rows, so memory grows with the width of the tile and the number of footprints
    on it. A file without a spatial index, such as GeoJSON, is read from start to end at each call.

    Args:
        footprints: polygons in any CRS, in a file that GDAL reads (GeoPackage, GeoJSON, Shapefile).
            Only those that meet the tile are read; they are transformed to the image's CRS. Null
            and empty geometries, parts that are not polygons, and heights are ignored; invalid
            polygons are made valid.
        image: the tile, georeferenced; only its grid is read.
        out: the mask: a GeoTIFF on the image's grid with one band of uint8, 255 where the centre of
            a pixel lies in a footprint and 0 elsewhere. Holes stay holes.
        layer: the layer of ``footprints`` to rasterise; needed if several have geometries.

    Raises:
        UserError: one of the files cannot be read, or has no CRS; the image has no georeference, or
            the footprints cannot be transformed to its CRS; the layer is missing, is
            empty, holds points or lines, or is one of several; ``out`` is a folder, or cannot be
            written.
    """
    source = find_layer(footprints, layer)
    tile = _Tile.read(image)
    if out.is_dir():
        raise UserError(f"{out}: is a folder; expected the name of a file to write.")
    polygons, stats = _read_polygons(source, tile)
    try:
        with atomic_write(out) as scratch:
            _write_mask(scratch, tile, polygons)
    except (RasterioError, OSError) as error:
        raise UserError(
            f"{out}: cannot be written ({error.__cause__ or error}). Is there room on the disk, "
            "and may you write in its folder?"
        ) from None
    return stats


@dataclass(frozen=True)
class _Tile:
    """The grid of an image; ``transform`` maps (column, row) to the coordinates of ``crs``."""

    path: Path
    width: int
    height: int
    crs: CRS
    transform: Affine

    @classmethod
    def read(cls, path: Path) -> _Tile:
        with open_raster(path) as source:
            missing = [] if source.crs else ["CRS"]
            # GDAL gives the identity to a raster that states no transform.
            if source.transform == Affine.identity() or source.transform.is_degenerate:
                missing.append("transform")
            if missing:
                raise UserError(
                    f"{path}: has no {' and no '.join(missing)}, so nothing tells where the "
                    "footprints lie on it. Georeference it (for example with `gdal_edit.py -a_srs "
                    "... -a_ullr ...`), or bring its mask as a raster."
                )
            return cls(path, source.width, source.height, source.crs, source.transform)


@contextmanager
def _reading(footprints: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # GDAL warns about every invalid ring; `rasterize_footprints` repairs and counts them.
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    except (DataSourceError, DataLayerError, FeatureError) as error:
        raise UserError(
            f"{footprints}: cannot be read; it is missing, cut off, damaged or not a vector file. "
            f"Replace it with a whole GeoPackage, GeoJSON or Shapefile. GDAL says: {error}"
        ) from None


def _read_polygons(layer: FootprintLayer, tile: _Tile) -> tuple[Polygons, RasterizeStats]:
    """The polygons of a layer that cover part of a tile, in pixels of the tile (x column, y "
    "row)."""
    try:
        crs = pyproj.CRS.from_user_input(tile.crs.to_string())
        to_tile = pyproj.Transformer.from_crs(layer.crs, crs, always_xy=True)
        bounds = _bounds(tile, to_tile)
    except ProjError as error:
        raise UserError(
            f"{layer.path}: its CRS {layer.crs} cannot be transformed to {tile.crs.to_string()}, "
            f"the CRS of {tile.path} ({error}). Set the right CRS for both files."
        ) from None
    with _reading(layer.path):
        _, _, encoded, _ = pyogrio.raw.read(layer.path, layer=layer.name, columns=[], bbox=bounds)
    # Open rings are closed; types that GEOS does not know, such as a TIN, become None.
    geometries = shapely.from_wkb(encoded, on_invalid="fix")

    geometries = shapely.transform(
        geometries, lambda x, y: to_tile.transform(x, y), interleaved=False
    )
    coordinates, places = shapely.get_coordinates(geometries, return_index=True)
    geometries[places[~np.isfinite(coordinates).all(axis=1)]] = None
    to_pixels = ~tile.transform
    geometries = shapely.transform(geometries, lambda x, y: to_pixels @ (x, y), interleaved=False)
    invalid = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    # "structure" keeps the union of overlapping parts; the default method makes it a hole.
    geometries[invalid] = shapely.make_valid(
        geometries[invalid], method="structure", keep_collapsed=False
    )

    parts, features = _polygons_of(geometries)
    whole = shapely.box(0, 0, tile.width, tile.height)
    covering = shapely.relate_pattern(parts, whole, "T********")  # not only touching its edge
    on_tile = np.unique(features[covering])
    return parts[covering], RasterizeStats(
        features=len(on_tile),
        repaired=int(invalid[on_tile].sum()),
        skipped=len(np.setdiff1d(np.arange(len(geometries)), features)),
    )


def _bounds(tile: _Tile, to_tile: pyproj.Transformer) -> tuple[float, float, float, float]:
    """The bounds of a tile in the CRS of the footprints: left, bottom, right, top."""
    corners = [(col, row) for col in (0, tile.width) for row in (0, tile.height)]
    x, y = np.transpose([tile.transform @ corner for corner in corners])
    left, bottom, right, top = to_tile.transform_bounds(
        x.min(), y.min(), x.max(), y.max(), direction="INVERSE", errcheck=True
    )
    if left > right:  # the tile crosses the antimeridian
        left, right = -180.0, 180.0
    return left, bottom, right, top


def _polygons_of(geometries: Polygons) -> tuple[Polygons, npt.NDArray[np.int64]]:
    """All polygons in geometries of any type, with the index of the geometry of each."""
    parts, index = shapely.get_parts(geometries, return_index=True)
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts, inner = shapely.get_parts(parts, return_index=True)  # collections in collections
        index = index[inner]
    polygons = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    return parts[polygons], index[polygons]


def _write_mask(path: Path, tile: _Tile, polygons: Polygons) -> None:
    """Write the mask of ``polygons`` in the tile's pixels, in strips of whole blocks."""
    tree = shapely.STRtree(polygons)
    strips = [
        Window(0, row, tile.width, min(_strip_rows(tile), tile.height - row))
        for row in range(0, tile.height, _strip_rows(tile))
    ]
    with (
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=tile.width,
            height=tile.height,
            count=1,
            dtype="uint8",
            crs=tile.crs,
            transform=tile.transform,
            compress="deflate",
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            bigtiff="if_safer",
        ) as target,
    ):
        for strip in strips:
            top, bottom = strip.row_off, strip.row_off + strip.height
            drawn = polygons[tree.query(shapely.box(0, top, tile.width, bottom))]
            mask: Image = np.zeros((strip.height, strip.width), np.uint8)
            if len(drawn):
                rasterize(
                    drawn,
                    out=mask,
                    transform=Affine.translation(0, top),
                    default_value=255,
                    all_touched=False,
                )
            target.write(mask, 1, window=strip)
    # GDAL does not report errors while it closes a file, such as a full disk: read it back.
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB), rasterio.open(path) as source:
        for strip in strips:
            source.read(1, window=strip)


def _strip_rows(tile: _Tile) -> int:
    return max(BLOCK, STRIP_PIXELS // tile.width // BLOCK * BLOCK)
