"""Rasterize vector footprints onto the grid of a tile, as its mask."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
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
from rasterio.features import rasterize

from roofseg.core.errors import UserError
from roofseg.core.images import Image
from roofseg.intake.convert import verified_write
from roofseg.intake.geoparquet import read_geometries, read_metadata
from roofseg.intake.world import World, find_world
from roofseg.sliding_window.imagery import unused_placement
from roofseg.tiles.datum import find_missing_grid
from roofseg.tiles.grid import Grid, read_grid
from roofseg.tiles.rasters import open_raster

Geometries = npt.NDArray[np.object_]  # (N,) shapely geometries
# A layer has no polygons if its geometry type contains one of these; a mixed layer is "Unknown".
NO_POLYGONS = ("Point", "LineString", "CircularString")


@dataclass(frozen=True)
class FootprintLayer:
    """A layer of polygons: its file, its name, and its CRS as a code or WKT.

    In GeoParquet a layer is a column of geometries.
    """

    path: Path
    name: str
    crs: str


@dataclass(frozen=True)
class RasterizeStats:
    """Counts of the features that were rasterized onto a tile, repaired, or skipped.

    ``features`` is the number of features with a polygon that covers part of the tile; ``repaired``
    of them were invalid (for example, the outline crosses itself) and were repaired. ``skipped``
    features meet the tile but have no polygon that can be drawn in its CRS: points, lines, surfaces
    in 3D, broken coordinates.
    """

    features: int
    repaired: int
    skipped: int


def find_layer(
    footprints: Path,
    name: str | None = None,
    *,
    may_be_empty: bool = False,
    content: str = "buildings",
    option: str = "--layer",
) -> FootprintLayer:
    """Find the polygon layer of a file: the one called ``name``, or the only one with geometries.

    ``content`` says what the polygons are of, and ``option`` names the layer, both for messages.

    Reads no features. Raises UserError if the file cannot be read or has no such layer, and if the
    layer has no CRS, no features (unless it ``may_be_empty``), or only points or lines.
    """
    layers, default = _list_layers(footprints)
    if name is None:
        name = default
    if name is None or name not in layers:
        found = ", ".join(map(repr, layers)) or "no layer with geometries"
        if name is None and layers:
            command = shlex.join([str(footprints), next(iter(layers))])
            raise UserError(
                f"{footprints}: has several layers: {found}. Choose one with {option}, or "
                "save it as a separate file, for example with `ogr2ogr -f GPKG "
                f"footprints.gpkg {command}`."
            )
        wanted = "a layer of polygons" if name is None else f"the layer {name!r}"
        raise UserError(f"{footprints}: found {found}; expected {wanted}.")
    features, kinds, crs = _describe(footprints, name)
    place = f"{footprints}, layer {name!r}"
    if not features and not may_be_empty:
        raise UserError(f"{place}: has no features; expected polygons of {content}.")
    if kinds and all(any(word in kind for word in NO_POLYGONS) for kind in kinds):
        raise UserError(
            f"{place}: holds geometries of type {', '.join(kinds)}; expected polygons of {content}."
        )
    if crs is None:
        raise UserError(
            f"{place}: has no CRS, so it cannot be placed on a tile. Set the CRS it was drawn in, "
            "for example with `ogr2ogr -a_srs`. (A Shapefile keeps its CRS in a .prj file beside "
            "it.)"
        )
    return FootprintLayer(footprints, name, crs)


def _list_layers(footprints: Path) -> tuple[Collection[str], str | None]:
    """The layers with geometries, and the default one; None if one of several must be named."""
    if _is_parquet(footprints):
        metadata = read_metadata(footprints)
        return metadata.columns.keys(), metadata.primary
    with _reading(footprints):
        layers = [str(layer) for layer, kind in pyogrio.list_layers(footprints) if kind]
    return layers, layers[0] if len(layers) == 1 else None


def _describe(footprints: Path, name: str) -> tuple[int, Sequence[str], str | None]:
    """The number of features of a layer, its geometry types (empty: any), and its CRS."""
    if _is_parquet(footprints):
        metadata = read_metadata(footprints)
        column = metadata.columns[name]
        return metadata.features, column.types, column.crs
    with _reading(footprints):
        info = pyogrio.read_info(footprints, layer=name)
    return info["features"], [info["geometry_type"]], info["crs"]


def _is_parquet(footprints: Path) -> bool:
    return footprints.suffix.lower() == ".parquet"


def check_placement(
    placed: Iterable[tuple[FootprintLayer, Grid]], *, allow_ballpark: bool
) -> list[str]:
    """Remarks on footprints that may lie more than a pixel off, because PROJ lacks a grid.

    ``placed`` are layers with the grids of the images that they are for; `rasterize_footprints`
    refuses images without a georeference. Raises UserError instead, unless ``allow_ballpark`` is
    set.
    """
    remarks: dict[str, str] = {}
    for layer, grid in placed:
        if grid.crs is None or grid.transform is None or grid.transform.is_degenerate:
            continue
        crs = grid.crs.to_string()
        missing = find_missing_grid(layer.crs, crs, grid)
        if missing and missing.exceeds_a_pixel and missing.name not in remarks:
            remark = f"{layer.path}: transformed from {layer.crs} to {crs}, footprints {missing}"
            if not allow_ballpark:
                raise UserError(f"{remark}. {missing.remedy}. Or accept it: --allow-ballpark.")
            remarks[missing.name] = remark
    return list(remarks.values())


def rasterize_footprints(layer: FootprintLayer, image: Path, out: Path) -> RasterizeStats:
    """Write the mask of a tile from vector footprints.

    Args:
        layer, image: as for `covered_pixels`, which says what is drawn.
        out: the mask: a GeoTIFF on the image's grid with one band of uint8.

    Raises:
        UserError: as `covered_pixels`
        OSError: ``out`` cannot be written
    """
    mask, stats = covered_pixels(layer, image, "bring its mask as a raster")
    with open_raster(image) as source:
        grid = read_grid(source)
    profile = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": 1,
        "dtype": "uint8",
        "crs": grid.crs,
        "transform": grid.transform,
        "compress": "deflate",
        "tiled": True,
        "bigtiff": "if_safer",
    }
    with verified_write(out), rasterio.open(out, "w", **profile) as target:
        target.write(mask, 1)
    return stats


def covered_pixels(layer: FootprintLayer, image: Path, remedy: str) -> tuple[Image, RasterizeStats]:
    """Find the pixels of a tile whose centres lie in the polygons of a layer.

    A file without a spatial index, such as GeoJSON or GeoParquet, is read from start to end at each
    call.

    Args:
        layer: only its polygons that meet the tile are read; they are transformed to the image's
            CRS. Null and empty geometries, parts that are not polygons, and heights are ignored;
            invalid polygons are made valid.
        image: the tile, georeferenced; only its grid is read.
        remedy: ends the advice for an image without a georeference.

    Returns:
        (H, W) uint8, 255 where the centre of a pixel lies in a polygon and 0 elsewhere (holes stay
        holes); and counts of the features.

    Raises:
        UserError: one of the files cannot be read; the image has no georeference; or the polygons
            cannot be transformed to its CRS
    """
    with open_raster(image) as source:
        grid, unused = read_grid(source), unused_placement(source)
    if unused:
        raise UserError(f"{image}: {unused}.")
    missing = [] if grid.crs else ["CRS"]
    if grid.transform is None or grid.transform.is_degenerate:
        missing.append("transform")
    if missing:
        raise UserError(
            f"{image}: has no {' and no '.join(missing)}, so nothing tells where the polygons "
            "lie on it. Georeference it (for example with `gdal_edit.py -a_srs ... -a_ullr ...`), "
            f"or {remedy}."
        )
    polygons, stats = _read_polygons(layer, image, grid)
    mask: Image = np.zeros((grid.height, grid.width), np.uint8)
    if len(polygons):
        rasterize(polygons, out=mask, default_value=255)
    return mask, stats


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
    except UnicodeDecodeError as error:
        raise UserError(
            f"{footprints}: holds names that are not UTF-8 ({error.reason}). Save it in UTF-8, for "
            "example with `iconv -f LATIN1 -t UTF-8`."
        ) from None


def _read_polygons(
    layer: FootprintLayer, image: Path, grid: Grid
) -> tuple[Geometries, RasterizeStats]:
    """The polygons of a layer that cover part of a tile, with x its column and y its row."""
    assert grid.crs is not None
    assert grid.transform is not None
    crs = grid.crs.to_string()
    x, y = np.transpose([grid.transform @ corner for corner in grid.corners])
    try:
        source_world, world = find_world(layer.crs), find_world(crs)
        to_tile = pyproj.Transformer.from_crs(layer.crs, crs, always_xy=True)
        left, bottom, right, top = to_tile.transform_bounds(
            x.min(), y.min(), x.max(), y.max(), direction="INVERSE", errcheck=True
        )
    except ProjError as error:
        raise UserError(
            f"{layer.path}: its CRS {layer.crs} cannot be transformed to {crs}, the CRS of {image} "
            f"({error}). Set the right CRS for both files."
        ) from None
    geometries = _read_within(layer, _around((left, bottom, right, top), source_world))
    geometries = shapely.transform(
        geometries, lambda x, y: to_tile.transform(x, y), interleaved=False
    )
    coordinates, places = shapely.get_coordinates(geometries, return_index=True)
    geometries[places[~np.isfinite(coordinates).all(axis=1)]] = None
    if world and world.is_near_edge(x.min(), x.max()):
        # Every vertex moves by whole turns of the Earth, to the place nearest to the tile.
        middle = (x.min() + x.max()) / 2
        geometries = shapely.transform(
            geometries,
            lambda x, y: (x + world.width * np.round((middle - x) / world.width), y),
            interleaved=False,
        )
    to_pixels = ~grid.transform
    geometries = shapely.transform(geometries, lambda x, y: to_pixels @ (x, y), interleaved=False)
    invalid = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    # "structure" keeps the union of overlapping parts; the default method makes it a hole.
    geometries[invalid] = shapely.make_valid(
        geometries[invalid], method="structure", keep_collapsed=False
    )

    parts, features = _polygons_of(geometries)
    whole = shapely.box(0, 0, grid.width, grid.height)
    covering = shapely.relate_pattern(parts, whole, "T********")  # not only touching its edge
    on_tile = np.unique(features[covering])
    return parts[covering], RasterizeStats(
        features=len(on_tile),
        repaired=int(invalid[on_tile].sum()),
        skipped=len(np.setdiff1d(np.arange(len(geometries)), features)),
    )


def _around(bounds: tuple[float, float, float, float], world: World | None) -> shapely.Geometry:
    """Where features in bounds (left, bottom, right, top) may lie: also turns of the Earth away."""
    left, bottom, right, top = bounds
    if world is None:
        return shapely.box(*bounds)
    if left > right:  # PROJ's way to say that an area crosses the antimeridian
        right += world.width
    turns = (-1, 0, 1) if world.is_near_edge(left, right) else (0,)
    return shapely.union_all(
        [
            shapely.box(left + turn * world.width, bottom, right + turn * world.width, top)
            for turn in turns
        ]
    )


def _read_within(layer: FootprintLayer, within: shapely.Geometry) -> Geometries:
    """The geometries of a layer that meet ``within``, which is in the layer's coordinates."""
    if _is_parquet(layer.path):
        return read_geometries(layer.path, layer.name, within)
    with _reading(layer.path):
        _, _, encoded, _ = pyogrio.raw.read(layer.path, layer=layer.name, columns=[], mask=within)
    # Open rings are closed; types that GEOS does not know, such as a TIN, become None.
    geometries: Geometries = shapely.from_wkb(encoded, on_invalid="fix")
    return geometries


def _polygons_of(geometries: Geometries) -> tuple[Geometries, npt.NDArray[np.int64]]:
    """All polygons in geometries of any type, with the index of the geometry of each."""
    parts, index = shapely.get_parts(geometries, return_index=True)
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts, inner = shapely.get_parts(parts, return_index=True)  # collections in collections
        index = index[inner]
    polygons = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    return parts[polygons], index[polygons]
