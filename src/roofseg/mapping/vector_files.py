"""Write polygons as GeoPackage, GeoJSON or GeoParquet, in batches."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyogrio
import pyogrio.raw
import pyproj
from pyarrow import parquet

Driver = Literal["gpkg", "geojson", "parquet"]
LAYER = "footprints"
MEMBER = "roofseg"  # RFC 7946 allows foreign members for metadata
GEOMETRY = pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "ogc.wkb"})


def write_layer(
    out: Path,
    driver: Driver,
    batches: Iterable[pa.RecordBatch],
    *,
    schema: pa.Schema,
    crs: str | None,
    metadata: Mapping[str, str],
) -> int:
    """Write polygons to the new file ``out``; returns their number.

    ``batches`` have the columns of ``schema``, one of which is GEOMETRY: polygons as WKB whose
    outer rings run counter-clockwise. Only one batch is in memory at a time. Without any batch the
    layer has no features.

    ``crs`` is a code such as EPSG:32614, or WKT. GeoJSON needs one, and its coordinates are
    transformed to EPSG:4326 as RFC 7946 requires (7 decimals, cut at the antimeridian).
    ``metadata`` is stored with the layer in GeoPackage, with the file in GeoParquet, and as the
    member ``roofseg`` of GeoJSON's collection.

    Raises OSError if ``out`` cannot be written, and any error of ``batches``.
    """
    stream = _Stream(batches)
    try:
        if driver == "parquet":
            _write_parquet(out, stream, schema, crs, metadata)
        else:
            _write_with_gdal(out, driver, stream, schema, crs, metadata)
    except (RuntimeError, OSError, pa.ArrowException) as error:  # pyogrio raises RuntimeErrors
        kept = isinstance(error, OSError) and error.errno
        raise stream.error or (error if kept else OSError(str(error))) from None
    return stream.count


class _Stream:
    """Counts features and keeps an error of ``batches``, which the C code that reads them drops."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self.count = 0
        self.error: BaseException | None = None
        self._batches = batches

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                self.count += batch.num_rows
                yield batch
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise


def _write_with_gdal(
    path: Path,
    driver: Driver,
    stream: _Stream,
    schema: pa.Schema,
    crs: str | None,
    metadata: Mapping[str, str],
) -> None:
    options: dict[str, Any]
    if driver == "gpkg":
        options = {"driver": "GPKG", "layer_metadata": dict(metadata)}
    else:
        member = json.dumps({MEMBER: dict(metadata)}, ensure_ascii=False)
        layer_options = {"RFC7946": "YES", "FOREIGN_MEMBERS_COLLECTION": member}
        options = {"driver": "GeoJSON", "layer_options": layer_options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        pyogrio.raw.write_arrow(
            pa.RecordBatchReader.from_batches(schema, iter(stream)),
            path,
            layer=LAYER,
            geometry_name=GEOMETRY.name,
            geometry_type="Polygon",
            crs=crs,
            **options,
        )
    # GDAL does not report errors while it closes a file, such as a full disk. In a GeoPackage the
    # spatial index comes after the last feature.
    info = pyogrio.read_info(path, force_feature_count=True)
    indexed = driver != "gpkg" or info["capabilities"]["fast_spatial_filter"]
    if info["features"] != stream.count or not indexed:
        raise OSError(f"only {info['features']} of {stream.count} features were written")


def _write_parquet(
    path: Path,
    stream: _Stream,
    schema: pa.Schema,
    crs: str | None,
    metadata: Mapping[str, str],
) -> None:
    """GeoParquet 1.1: Parquet with WKB and a description of it (https://geoparquet.org)."""
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "orientation": "counterclockwise",
        "crs": crs and pyproj.CRS.from_user_input(crs).to_json_dict(),
    }
    geo = {
        "version": "1.1.0",
        "primary_column": GEOMETRY.name,
        "columns": {GEOMETRY.name: column},
    }
    file_metadata = {**metadata, "geo": json.dumps(geo)}
    with parquet.ParquetWriter(path, schema.with_metadata(file_metadata)) as writer:
        for batch in stream:
            writer.write_batch(batch)
