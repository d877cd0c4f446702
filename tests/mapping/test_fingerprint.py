from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from identity import picture
from raster_files import write_container
from tiny_dataset import CRS, TRANSFORM, write_raster

from roofseg.core.errors import UserError
from roofseg.mapping.fingerprint import fingerprint, input_files

Change = Callable[[Path], object]


def vrt_of(source: Path, path: Path) -> Path:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename '
        f'relativeToVRT="1">{source.name}</SourceFilename><SourceBand>{band}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    path.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{bands}</VRTDataset>')
    return path


def pam(text: str) -> Change:
    return lambda path: path.with_name(f"{path.name}.aux.xml").write_text(
        f"<PAMDataset>{text}</PAMDataset>"
    )


def older(path: Path) -> None:
    os.utime(path, (1e9, 1e9))


def larger(path: Path) -> None:
    stat = path.stat()
    with path.open("ab") as file:
        file.write(b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def masked(path: Path) -> None:
    stat = path.stat()
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as target:
        target.write_mask(np.eye(40, 50) > 0)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def placed(path: Path) -> None:
    path.with_suffix(".wld").write_text("1\n0\n0\n-1\n0.5\n8.5\n")


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    write_raster(tmp_path / "t.tif", picture(40, 50))
    return tmp_path / "t.tif"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "change",
    [
        older,
        larger,
        masked,
        placed,
        pam("<SRS>EPSG:32614</SRS>"),
        pam("<GeoTransform>1, 0.3, 0, 2, 0, -0.3</GeoTransform>"),
        pam('<PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand>'),
    ],
)
def test_a_change_is_noticed(tile: Path, change: Change) -> None:
    before = fingerprint(str(tile))
    change(tile)
    assert fingerprint(str(tile)) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda path: None,
        pam('<PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">9</MDI></Metadata>'
            "</PAMRasterBand>"),
        lambda path: path.with_suffix(".qml").touch(),
        lambda path: path.with_name("u.tif").touch(),
        lambda path: shutil.move(shutil.copy2(path, path.with_name("copy")), path),
    ],
)  # fmt: skip
def test_other_changes_do_not_count(tile: Path, change: Change) -> None:
    before = fingerprint(str(tile))
    change(tile)
    assert fingerprint(str(tile)) == before


def test_a_folder_may_be_moved(tile: Path, tmp_path: Path) -> None:
    before = fingerprint(str(tile))
    shutil.copytree(tile.parent, tmp_path / "moved")
    assert fingerprint(str(tmp_path / "moved" / "t.tif")) == before


@pytest.mark.parametrize("change", [older, larger, Path.unlink])
def test_the_sources_of_a_vrt_count(tile: Path, tmp_path: Path, change: Change) -> None:
    """Also through another VRT."""
    inner = vrt_of(tile, tmp_path / "inner.vrt")
    outer = vrt_of(inner, tmp_path / "outer.VRT")
    before = [fingerprint(str(path)) for path in (inner, outer)]
    change(tile)
    assert not set(before) & {fingerprint(str(path)) for path in (inner, outer)}


def test_inputs_that_are_not_local_have_none() -> None:
    for name in ("https://example.org/a.tif", "s3://bucket/a.tif", "/vsizip/a.zip/a.tif", "gone"):
        assert fingerprint(name) == ""


def test_an_input_that_cannot_be_read(tile: Path) -> None:
    write_raster(tile, picture(40, 50), crs=CRS, transform=TRANSFORM)
    tile.write_bytes(tile.read_bytes()[:50])
    with pytest.raises(UserError, match=r"t\.tif: cannot be read"):
        fingerprint(str(tile))


def test_one_raster_of_several_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "city.gpkg"
    pixels = np.zeros((40, 50, 3), np.uint8)
    write_container(path, {"a": pixels, "b": pixels})
    before = fingerprint(f"GPKG:{path}:a")
    assert len(before) == 16
    older(path)
    assert fingerprint(f"GPKG:{path}:a") != before
    assert input_files(f"GPKG:{path}:a") >= {str(path)}


def test_a_page_of_a_tiff(tile: Path) -> None:
    before = fingerprint(f"GTIFF_DIR:1:{tile}")
    assert len(before) == 16
    older(tile)
    assert fingerprint(f"GTIFF_DIR:1:{tile}") != before
