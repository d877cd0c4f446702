from __future__ import annotations

from pathlib import Path

import geopandas
import pytest
import rasterio.shutil
import shapely
from tiny_dataset import CRS, write_dataset

from roofseg.core.errors import UserError
from roofseg.cutting.find import find_tiles, is_vector

SPLIT = {"b": "train", "a": "train", "c": "val", "d": "test"}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data" / "mine", SPLIT, size=32)


def test_order_and_paths(dataset: Path) -> None:
    tiles, _ = find_tiles(dataset)
    assert [(tile.name, tile.split) for tile in tiles] == [
        ("a", "train"),
        ("b", "train"),
        ("c", "val"),
        ("d", "test"),
    ]
    assert tiles[0].image == dataset / "imgs" / "a.tif"
    assert tiles[0].mask == dataset / "msks" / "a.tif"


def test_sidecars_hidden_files_and_folders_are_not_tiles(dataset: Path) -> None:
    for name in ("a.tif.aux.xml", "a.TFW", "a.tif.ovr", ".gitignore", ".DS_Store", "z.txt"):
        (dataset / "imgs" / name).touch()
    (dataset / "imgs" / "old").mkdir()
    tiles, unlisted = find_tiles(dataset)
    assert (len(tiles), unlisted) == (4, [])


@pytest.mark.parametrize("driver", ["GeoJSON", "GPKG", "ESRI Shapefile", "FlatGeobuf"])
def test_vector_files_and_files_beside_them_are_not_tiles(dataset: Path, driver: str) -> None:
    suffix = {"GeoJSON": "geojson", "GPKG": "gpkg", "FlatGeobuf": "fgb"}.get(driver, "shp")
    path = dataset / "imgs" / f"labels.{suffix}"
    roofs = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=CRS)
    roofs.to_file(path, driver=driver)
    for name in ("labels.gpkg-wal", "labels.SHP", "labels.parquet"):
        (dataset / "imgs" / name).touch()
    tiles, unlisted = find_tiles(dataset)
    assert (len(tiles), unlisted) == (4, [])


def test_a_geopackage_may_be_a_raster(dataset: Path) -> None:
    path = dataset / "imgs" / "z.gpkg"
    with rasterio.open(dataset / "imgs" / "a.tif") as source:
        rasterio.shutil.copy(source, path, driver="GPKG")
    assert not is_vector(path)
    assert find_tiles(dataset)[1] == ["z"]


def test_unlisted_tiles_are_named_and_left_out(dataset: Path) -> None:
    for name in ("imgs/z.tif", "msks/z.tif", "imgs/extra.v2.png", "msks/only_mask.png"):
        (dataset / name).touch()
    tiles, unlisted = find_tiles(dataset)
    assert (len(tiles), unlisted) == (4, ["extra.v2", "only_mask", "z"])


@pytest.mark.parametrize("kind", ["imgs", "msks"])
def test_a_tile_without_image_or_mask(dataset: Path, kind: str) -> None:
    (dataset / kind / "c.tif").unlink()
    with pytest.raises(UserError, match=rf"{kind}: no file for c, which .*split\.csv lists"):
        find_tiles(dataset)


@pytest.mark.parametrize("kind", ["imgs", "msks"])
def test_two_files_for_a_tile(dataset: Path, kind: str) -> None:
    (dataset / kind / "c.png").touch()
    with pytest.raises(UserError, match=rf"{kind}/c\.tif: c\.png in the same folder"):
        find_tiles(dataset)


def test_a_missing_folder(dataset: Path) -> None:
    (dataset / "msks").rename(dataset / "labels")
    with pytest.raises(UserError, match="msks: no such folder"):
        find_tiles(dataset)
