from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
from pyarrow import parquet
from tiny_dataset import CRS, TRANSFORM, write_raster

from roofseg.core.errors import UserError
from roofseg.intake import geoparquet
from roofseg.intake.rasterize import RasterizeStats, find_layer, rasterize_footprints
from roofseg.mapping.footprints import Vector, write_footprints

HEIGHT, WIDTH = 48, 64
GEO = {"crs": CRS, "transform": TRANSFORM}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_raster(tmp_path / "tile.tif", np.zeros((HEIGHT, WIDTH, 3), np.uint8), **GEO)
    return tmp_path / "tile.tif"


def house(col: int, row: int) -> shapely.Polygon:
    """8 x 6 px of the tile."""
    return shapely.box(*(TRANSFORM @ (col, row)), *(TRANSFORM @ (col + 8, row + 6)))


def frame(*geometries: shapely.Geometry | None, to: str = CRS) -> geopandas.GeoDataFrame:
    series = geopandas.GeoSeries(geometries, crs=CRS).to_crs(to)
    return geopandas.GeoDataFrame({"name": "Dach"}, index=range(len(series)), geometry=series)


def edit(path: Path, **changes: Any) -> Path:
    """Change keys of the only geometry column in the metadata ``geo``; None removes ``geo``."""
    table = parquet.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    (column,) = geo["columns"].values()
    for key, value in changes.items():
        if value is ...:
            column.pop(key, None)
        else:
            column[key] = value
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return path


def burnt(vector: Path, image: Path, layer: str | None = None) -> tuple[RasterizeStats, list[int]]:
    """The counts, and the sums of the mask's quarters from left to right, in pixels."""
    out = image.with_name("mask.tif")
    stats = rasterize_footprints(find_layer(vector, layer), image, out)
    with rasterio.open(out) as source:
        quarters = np.split(source.read(1), 4, axis=1)
    return stats, [int(np.count_nonzero(quarter)) for quarter in quarters]


@pytest.mark.parametrize("to", [CRS, "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
@pytest.mark.parametrize("batch", [1, 10_000])
def test_files_of_geopandas(
    tmp_path: Path, image: Path, to: str, version: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geoparquet, "BATCH", batch)
    layer = frame(house(4, 5), None, house(36, 9), house(900, 0), to=to)
    layer = layer.rename_geometry("Gebäude")
    bounds = version == "1.1.0"
    layer.to_parquet(tmp_path / "h.parquet", schema_version=version, write_covering_bbox=bounds)
    assert burnt(tmp_path / "h.parquet", image) == (RasterizeStats(2, 0, 0), [48, 0, 48, 0])


def test_our_own_files(tmp_path: Path, image: Path) -> None:
    probability = np.zeros((HEIGHT, WIDTH), np.float32)
    probability[5:11, 4:12] = 1
    write_raster(tmp_path / "p.tif", probability, **GEO)
    write_footprints(tmp_path / "p.tif", tmp_path / "own.parquet", Vector("parquet"))
    assert burnt(tmp_path / "own.parquet", image) == (RasterizeStats(1, 0, 0), [48, 0, 0, 0])


def test_a_file_that_states_no_crs_is_in_longitude_and_latitude(
    tmp_path: Path, image: Path
) -> None:
    frame(house(4, 5), to="EPSG:4326").to_parquet(tmp_path / "h.parquet")
    edit(tmp_path / "h.parquet", crs=...)
    assert find_layer(tmp_path / "h.parquet").crs == "OGC:CRS84"
    assert burnt(tmp_path / "h.parquet", image)[1] == [48, 0, 0, 0]


def test_a_crs_without_a_code(tmp_path: Path, image: Path) -> None:
    local = "+proj=tmerc +lat_0=30 +lon_0=-97 +datum=WGS84 +units=us-ft"
    frame(house(4, 5), to=local).to_parquet(tmp_path / "h.parquet")
    assert burnt(tmp_path / "h.parquet", image)[1] == [48, 0, 0, 0]


def test_a_column_is_chosen_as_a_layer(tmp_path: Path, image: Path) -> None:
    """The primary one, if none is named."""
    layer = frame(house(4, 5))
    layer["yard"] = geopandas.GeoSeries([house(36, 9)], crs=CRS)
    layer.to_parquet(tmp_path / "h.parquet")
    assert burnt(tmp_path / "h.parquet", image)[1] == [48, 0, 0, 0]
    assert burnt(tmp_path / "h.parquet", image, "yard")[1] == [0, 0, 48, 0]
    with pytest.raises(UserError, match="found 'geometry', 'yard'; expected the layer 'name'"):
        find_layer(tmp_path / "h.parquet", "name")


def test_geometries_that_cannot_be_drawn_are_counted(tmp_path: Path, image: Path) -> None:
    path = tmp_path / "h.parquet"
    frame(house(4, 5), house(4, 5).centroid).to_parquet(path)
    table = parquet.read_table(path)
    broken = [b"\1\3", *table["geometry"].to_pylist()]
    table = pa.table({"geometry": broken}, metadata=table.schema.metadata)
    parquet.write_table(table, path)
    assert burnt(path, image) == (RasterizeStats(1, 0, skipped=2), [48, 0, 0, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crs": None}, r"layer 'geometry': has no CRS, so it cannot be placed"),
        ({"crs": {"type": "circle"}}, r"its metadata `geo` is not that of GeoParquet"),
        ({"encoding": "polygon"}, r"as WKB \(encoding 'polygon'\)\. Save it again"),
        ({"geometry_types": ["Point", "LineString Z"]}, "holds geometries of type Point, LineStr"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    frame(house(4, 5)).to_parquet(tmp_path / "h.parquet")
    with pytest.raises(UserError, match=rf"h\.parquet.*{message}"):
        find_layer(edit(tmp_path / "h.parquet", **changes))


@pytest.mark.parametrize(
    "geo",
    [
        "nonsense",
        "[]",
        "{}",
        '{"columns": {"geometry": {"encoding": "WKB"}}, "primary_column": "other"}',
        '{"columns": {"gone": {"encoding": "WKB"}}, "primary_column": "gone"}',
        '{"columns": {"name": {"encoding": "WKB"}}, "primary_column": "name"}',
    ],
)
def test_metadata_of_another_form(tmp_path: Path, geo: str) -> None:
    table = pa.table({"geometry": [b""], "name": ["Dach"]}, metadata={"geo": geo})
    parquet.write_table(table, tmp_path / "h.parquet")
    with pytest.raises(UserError, match=r"h\.parquet: its metadata `geo` is not that of GeoParq"):
        find_layer(tmp_path / "h.parquet")


def test_no_features_and_plain_parquet(tmp_path: Path) -> None:
    frame(house(4, 5))[:0].to_parquet(tmp_path / "none.parquet")
    with pytest.raises(UserError, match=r"none\.parquet, layer 'geometry': has no features"):
        find_layer(tmp_path / "none.parquet")
    parquet.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "table.parquet")
    with pytest.raises(UserError, match=r"without the metadata `geo`; found the columns x, y, exp"):
        find_layer(tmp_path / "table.parquet")


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9])
def test_a_file_that_was_cut_off(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "h.parquet"
    frame(*[house(col, 5) for col in range(0, 50, 10)]).to_parquet(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError, match=r"h\.parquet: cannot be read; it is missing, cut off"):
        find_layer(path)
    path.unlink()
    with pytest.raises(UserError, match=r"h\.parquet: cannot be read; it is missing, cut off"):
        find_layer(path)


@pytest.mark.parametrize("seed", range(20))
def test_a_garbled_file(tmp_path: Path, image: Path, seed: int) -> None:
    """Wrong bytes give a UserError or a whole mask, never a traceback."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "h.parquet"
    frame(*[house(col, 5) for col in range(0, 50, 10)]).to_parquet(path)
    data = bytearray(path.read_bytes())
    for place in rng.integers(0, len(data), 1 + seed):
        data[place] = rng.integers(0, 256)
    path.write_bytes(bytes(data))
    message = str(path)
    try:
        burnt(path, image)
    except UserError as error:
        message = str(error)
    assert str(path) in message
