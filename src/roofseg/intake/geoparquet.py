"""Read GeoParquet 1.0 and 1.1 (https://geoparquet.org), which pyogrio's GDAL cannot read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyproj
import shapely
from pyarrow import parquet
from pyproj.exceptions import CRSError

from roofseg.core.errors import UserError

BATCH = 10_000  # features in memory at a time, beside those that are kept
BINARY = (pa.binary(), pa.large_binary(), pa.binary_view())
# The errors of a file without the metadata that GeoParquet requires.
METADATA_ERRORS = (ValueError, LookupError, TypeError, AttributeError, CRSError)


@dataclass(frozen=True)
class GeometryColumn:
    """A column of WKB: its geometry types (empty: any), and its CRS as a code or WKT, or None."""

    types: tuple[str, ...]
    crs: str | None


@dataclass(frozen=True)
class GeoParquet:
    """The metadata of a file: number of features, geometry columns, and name of the primary one."""

    features: int
    columns: dict[str, GeometryColumn]
    primary: str


def read_metadata(path: Path) -> GeoParquet:
    """Read the metadata of a file; UserError if it is damaged or not GeoParquet with WKB."""
    with _reading(path), parquet.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
    stored = (metadata.metadata or {}).get(b"geo")
    if stored is None:
        raise UserError(
            f"{path}: is Parquet without the metadata `geo`; found the columns "
            f"{', '.join(schema.names)}, expected GeoParquet 1.0 or 1.1. Save it as that, or as "
            "GeoPackage, for example with QGIS or geopandas."
        )
    try:
        geo = json.loads(stored)
        columns = {name: _read_column(column) for name, column in geo["columns"].items()}
        primary = geo["primary_column"]
        for name in (primary, *columns):
            if name not in columns or schema.field(name).type not in BINARY:
                raise ValueError(f"column {name!r} is not WKB")
    except METADATA_ERRORS as error:
        raise UserError(
            f"{path}: its metadata `geo` is not that of GeoParquet 1.0 or 1.1 with geometries as "
            f"WKB ({error}). Save it again, for example as GeoPackage with QGIS or geopandas."
        ) from None
    return GeoParquet(metadata.num_rows, columns, primary)


def _read_column(column: dict[str, Any]) -> GeometryColumn:
    if column["encoding"] != "WKB":
        raise ValueError(f"encoding {column['encoding']!r}")
    stated = column.get("crs", "OGC:CRS84")  # the default; null means that there is no CRS
    name = None
    if stated is not None:
        crs = pyproj.CRS.from_user_input(stated)
        code = crs.to_authority(min_confidence=100)
        name = ":".join(code) if code else crs.to_wkt()
    return GeometryColumn(tuple(column.get("geometry_types", ())), name)


def read_geometries(path: Path, column: str, within: shapely.Geometry) -> npt.NDArray[np.object_]:
    """Read the geometries of a column whose bounds meet ``within``: (N,) shapely geometries.

    ``within`` is a box or several. Reads the file from start to end. Rings that are not closed are
    closed; geometries that GEOS does not know become None and are kept.

    Raises UserError if the file is damaged.
    """
    boxes = shapely.bounds(shapely.get_parts(within))
    found = []
    with _reading(path), parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=[column]):
            encoded = batch.column(0).to_numpy(zero_copy_only=False)
            geometries = shapely.from_wkb(encoded, on_invalid="fix")
            bounds = shapely.bounds(geometries)
            kept = shapely.is_missing(geometries) & np.array([wkb is not None for wkb in encoded])
            for box in boxes:
                kept |= (bounds[:, :2] <= box[2:]).all(axis=1) & (bounds[:, 2:] >= box[:2]).all(
                    axis=1
                )
            found.append(geometries[kept])
    return np.concatenate(found) if found else np.empty(0, object)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: cannot be read; it is missing, cut off, damaged or not Parquet. Replace it "
            f"with a whole file. pyarrow says: {error}"
        ) from None
