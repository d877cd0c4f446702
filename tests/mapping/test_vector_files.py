from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import geopandas
import pyarrow as pa
import pyogrio
import pyogrio.raw
import pytest
import shapely
from pyarrow import parquet
from unwritable import full_disk, read_only_folder

from roofseg.core.errors import UserError
from roofseg.mapping.vector_files import GEOMETRY, Driver, write_layer

SCHEMA = pa.schema([pa.field("area_m2", pa.float64()), GEOMETRY])
DRIVERS = get_args(Driver)
UTM = "EPSG:32614"


def batch(*polygons: shapely.Polygon) -> pa.RecordBatch:
    areas = pa.array([polygon.area for polygon in polygons], pa.float64())
    encoded = pa.array([shapely.to_wkb(polygon) for polygon in polygons], pa.binary())
    return pa.record_batch([areas, encoded], schema=SCHEMA)


def squares(batches: int, each: int = 100) -> Iterator[pa.RecordBatch]:
    for number in range(batches):
        places = range(number * each, (number + 1) * each)
        yield batch(*(shapely.box(621000 + x, 3350000, 621001 + x, 3350001) for x in places))


def write(
    out: Path, driver: Driver, batches: Iterator[pa.RecordBatch], crs: str | None = UTM
) -> int:
    metadata = {"ROOFSEG_ATTEMPT": "unet für Dächer"}
    return write_layer(out, driver, batches, schema=SCHEMA, crs=crs, metadata=metadata)


def read(path: Path) -> geopandas.GeoDataFrame:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path)


@pytest.mark.parametrize("driver", DRIVERS)
class TestWriteLayer:
    def test_all_batches_arrive(self, tmp_path: Path, driver: Driver) -> None:
        out = tmp_path / f"Dächer im Süden.{driver}"
        assert write(out, driver, squares(3)) == 300
        found = read(out)
        assert len(found) == 300
        assert found.to_crs(UTM).area.sum() == pytest.approx(300, rel=0.01)
        assert found["area_m2"].tolist() == [1] * 300
        assert found.crs.to_string() == ("EPSG:4326" if driver == "geojson" else UTM)
        assert [path.name for path in tmp_path.iterdir()] == [out.name]

    def test_no_batches_make_an_empty_layer(self, tmp_path: Path, driver: Driver) -> None:
        out = tmp_path / f"none.{driver}"
        assert write(out, driver, squares(0)) == 0
        found = read(out)
        assert len(found) == 0
        assert found.crs is not None
        if driver != "geojson":  # which states no columns
            assert found.columns.tolist() == ["area_m2", "geometry"]
            assert found["area_m2"].dtype == float

    def test_batches_are_taken_one_at_a_time(self, tmp_path: Path, driver: Driver) -> None:
        """No earlier batch is alive when the next one is made."""
        before = pa.total_allocated_bytes()
        held = []

        def watched() -> Iterator[pa.RecordBatch]:
            for _ in range(5):
                held.append(pa.total_allocated_bytes() - before)
                yield from squares(1, 1000)

        write(tmp_path / f"out.{driver}", driver, watched())
        assert held[-1] <= held[1]

    @pytest.mark.parametrize("error", [UserError("broken tile"), KeyboardInterrupt(), KeyError()])
    def test_errors_of_batches_are_raised(
        self, tmp_path: Path, driver: Driver, error: BaseException
    ) -> None:
        def broken() -> Iterator[pa.RecordBatch]:
            yield from squares(1)
            raise error

        with pytest.raises(type(error)) as caught:
            write(tmp_path / f"out.{driver}", driver, broken())
        assert caught.value is error

    def test_a_read_only_folder(self, driver: Driver) -> None:
        with read_only_folder() as folder:
            with pytest.raises(OSError, match=r"denied|unable to open"):
                write(folder / f"out.{driver}", driver, squares(1))
            assert list(folder.iterdir()) == []

    @pytest.mark.parametrize("missing", [2, 5000, 0.5, 0.9])
    def test_a_full_disk(self, tmp_path: Path, driver: Driver, missing: float) -> None:
        """The disk lacks two bytes (GeoJSON ends in a line break), some, or nearly all."""
        out = tmp_path / f"out.{driver}"
        write(out, driver, squares(10))
        size = out.stat().st_size
        out.unlink()
        room = int(size - missing if missing >= 1 else size * (1 - missing))
        with full_disk(room), pytest.raises(OSError, match=r"\w"):
            write(out, driver, squares(10))


@pytest.mark.parametrize("driver", ["gpkg", "geojson"])
def test_features_that_gdal_loses_are_noticed(
    tmp_path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL can lose features when it closes a file on a full disk, and leave a readable file."""
    write_arrow = pyogrio.raw.write_arrow

    def write_first_batch(reader: pa.RecordBatchReader, *args: object, **options: object) -> None:
        first, *_ = list(reader)
        kept = pa.RecordBatchReader.from_batches(SCHEMA, [first])
        write_arrow(kept, *args, **options)

    monkeypatch.setattr(pyogrio.raw, "write_arrow", write_first_batch)
    with pytest.raises(OSError, match=r"^only 100 of 300 features were written"):
        write(tmp_path / f"out.{driver}", driver, squares(3))


class TestFormats:
    def test_geopackage(self, tmp_path: Path) -> None:
        write(tmp_path / "out.gpkg", "gpkg", squares(1))
        info = pyogrio.read_info(tmp_path / "out.gpkg")
        assert (info["layer_name"], info["geometry_type"]) == ("footprints", "Polygon")
        assert info["layer_metadata"] == {"ROOFSEG_ATTEMPT": "unet für Dächer"}
        assert info["capabilities"]["fast_spatial_filter"]

    def test_geojson_follows_rfc_7946(self, tmp_path: Path) -> None:
        clockwise = shapely.box(621000, 3350000, 621003, 3350003, ccw=False)
        write(tmp_path / "out.geojson", "geojson", iter([batch(clockwise)]))
        found = json.loads((tmp_path / "out.geojson").read_text(encoding="utf-8"))
        assert "crs" not in found
        assert found["roofseg"] == {"ROOFSEG_ATTEMPT": "unet für Dächer"}
        (ring,) = found["features"][0]["geometry"]["coordinates"]
        assert shapely.LinearRing(ring).is_ccw
        assert ring[0] == pytest.approx([-97.74196, 30.27565], abs=1e-4)

    def test_geojson_is_cut_at_the_antimeridian(self, tmp_path: Path) -> None:
        # Zone 60 ends at 180°, about 334 km east of its middle.
        across = shapely.box(833_000, 100_000, 835_000, 100_100)
        write(tmp_path / "out.geojson", "geojson", iter([batch(across)]), "EPSG:32660")
        (polygon,) = read(tmp_path / "out.geojson").geometry
        assert [part.bounds[0] > 0 for part in polygon.geoms] in ([True, False], [False, True])
        assert polygon.area < 0.1

    def test_geoparquet(self, tmp_path: Path) -> None:
        write(tmp_path / "out.parquet", "parquet", squares(2))
        metadata = parquet.read_metadata(tmp_path / "out.parquet").metadata
        assert metadata[b"ROOFSEG_ATTEMPT"].decode() == "unet für Dächer"
        geo = json.loads(metadata[b"geo"])
        assert geo["version"] == "1.1.0"
        column = geo["columns"][geo["primary_column"]]
        assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
        assert column["crs"]["id"] == {"authority": "EPSG", "code": 32614}

    @pytest.mark.parametrize("driver", ["gpkg", "parquet"])
    def test_without_a_crs(self, tmp_path: Path, driver: Driver) -> None:
        out = tmp_path / f"out.{driver}"
        write(out, driver, squares(1), crs=None)
        assert read(out).crs is None
