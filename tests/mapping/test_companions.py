from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from identity import Identity, picture
from tiny_dataset import CRS, TRANSFORM, write_raster

from roofseg.core.errors import UserError
from roofseg.mapping.companions import check_unused, companions
from roofseg.mapping.footprints import Vector
from roofseg.mapping.predict import Options, predict_raster

OLD, NEW = (Options(vector=Vector("gpkg"), threshold=threshold) for threshold in (0.3, 0.6))
# Another program, which has the database argv[1] open. It runs the statements in argv[2:], says so,
# and ends without closing anything once its input ends.
EDITOR = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    database.execute(statement).fetchall()
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
"""
WAL = ("pragma journal_mode=wal", "update gpkg_contents set description = 'edit of the old file'")
READER = ("pragma journal_mode=wal", "select * from gpkg_contents")
WRITER = ("begin immediate", "update gpkg_contents set description = 'x'")
JOURNAL = (
    "pragma cache_size=1",
    "pragma synchronous=off",
    "begin",
    *WRITER[1:],
    "create table x (y)",
)


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    write_raster(tmp_path / "in" / "t.tif", picture(60, 70), crs=CRS, transform=TRANSFORM)
    return tmp_path / "in" / "t.tif"


@contextmanager
def opened(path: Path, *statements: str) -> Iterator[None]:
    command = [sys.executable, "-c", EDITOR, str(path), *statements]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield
        running.stdin.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def right(tile: Path, folder: Path) -> Any:
    predict_raster(Identity(), str(tile), folder / "t.tif", NEW)
    return pyogrio.read_dataframe(folder / "t.gpkg")


@pytest.mark.parametrize("statements", [WAL, JOURNAL])
@pytest.mark.parametrize("gone", [False, True])
def test_changes_of_a_program_that_crashed_are_not_applied_to_a_new_file(
    tile: Path, tmp_path: Path, statements: tuple[str, ...], gone: bool
) -> None:
    """Nor if the file that they belong to is gone."""
    out = tmp_path / "maps" / "t.tif"
    predict_raster(Identity(), str(tile), out, OLD)
    with opened(out.with_suffix(".gpkg"), *statements):
        pass
    assert [path for path in companions(out.with_suffix(".gpkg")) if path.exists()]
    if gone:
        out.with_suffix(".gpkg").unlink()
    predict_raster(Identity(), str(tile), out, NEW)
    assert sorted(contents(out.parent)) == ["t.gpkg", "t.tif"]
    found = pyogrio.read_dataframe(out.with_suffix(".gpkg"))
    assert found.equals(right(tile, tmp_path / "right"))
    with sqlite3.connect(out.with_suffix(".gpkg")) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    database.close()


@pytest.mark.parametrize("statements", [WAL, READER, WRITER])
def test_a_file_that_is_open_elsewhere_is_not_replaced(
    tile: Path, tmp_path: Path, statements: tuple[str, ...]
) -> None:
    out = tmp_path / "maps" / "t.tif"
    predict_raster(Identity(), str(tile), out, OLD)
    with opened(out.with_suffix(".gpkg"), *statements):
        before = contents(out.parent)
        with pytest.raises(UserError, match=r"t\.gpkg: is open in another program.*Close it there"):
            predict_raster(Identity(), str(tile), out, NEW)
        assert contents(out.parent) == before
    predict_raster(Identity(), str(tile), out, NEW)


def test_a_file_that_was_removed_while_it_is_open(tile: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps" / "t.tif"
    predict_raster(Identity(), str(tile), out, OLD)
    with opened(out.with_suffix(".gpkg"), *WAL):
        out.with_suffix(".gpkg").unlink()
        with pytest.raises(UserError, match=r"t\.gpkg: is open in another program"):
            check_unused(out.with_suffix(".gpkg"))


def test_statistics_masks_and_overviews_of_an_old_raster_go_with_it(
    tile: Path, tmp_path: Path
) -> None:
    """Other files beside it, such as styles, stay."""
    out = tmp_path / "maps" / "t.tif"
    write_raster(out, np.zeros((60, 70), np.uint8), crs=CRS, transform=TRANSFORM)
    out.with_name("t.tif.aux.xml").write_text("<PAMDataset/>")
    outside = {"TIFF_USE_OVR": True, "GDAL_TIFF_INTERNAL_MASK": False}
    with rasterio.Env(**outside), rasterio.open(out, "r+") as old:
        old.write_mask(np.zeros((60, 70), bool))
        old.build_overviews([2])
    kept = ("t.qml", "t.qmd", "t.tfw", "t.tif.txt", "other.tif.aux.xml", "other.gpkg-wal")
    for name in kept:
        out.with_name(name).touch()
    assert {"t.tif.aux.xml", "t.tif.msk", "t.tif.ovr"} < contents(out.parent).keys()
    predict_raster(Identity(), str(tile), out, Options())
    assert sorted(contents(out.parent)) == sorted([*kept, "t.tif"])
    with rasterio.open(out) as found:
        assert found.dataset_mask().all()


class Stopped(BaseException):
    pass


@pytest.mark.whole
def test_stopped_anywhere_no_new_file_has_companions_of_an_old_one(
    tile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no old database is without its write-ahead log."""
    out = tmp_path / "maps" / "t.tif"
    gpkg = out.with_suffix(".gpkg")
    predict_raster(Identity(), str(tile), out, OLD)
    with opened(gpkg, *WAL):
        pass
    out.with_name("t.tif.aux.xml").write_text("<PAMDataset/>")
    before = contents(out.parent)
    steps = 0

    def stopping(change: Any) -> Any:
        def step(path: Path, *arguments: Any, **options: Any) -> Any:
            nonlocal steps
            if gpkg.parent in (path.parent, path.parent.parent):
                if steps == 0:
                    raise Stopped
                steps -= 1
            return change(path, *arguments, **options)

        return step

    for name in ("unlink", "replace", "rename"):
        monkeypatch.setattr(Path, name, stopping(getattr(Path, name)))
    for last in range(30):
        for name, data in before.items():
            out.with_name(name).write_bytes(data)
        steps = last
        try:
            predict_raster(Identity(), str(tile), out, NEW)
        except Stopped:
            found = contents(out.parent)
            for path in (out, gpkg):
                if path.name in found:
                    old = found[path.name] == before[path.name]
                    beside = {file.name for file in companions(path)} & found.keys()
                    if not old:
                        assert not beside
                    elif path is gpkg:
                        assert beside == {"t.gpkg-wal", "t.gpkg-shm"}
        else:
            break
    assert last > 4
    assert sorted(contents(out.parent)) == ["t.gpkg", "t.tif"]
