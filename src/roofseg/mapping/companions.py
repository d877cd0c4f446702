"""Files beside an output that GDAL and SQLite read together with it, by its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from roofseg.core.errors import UserError

# A GeoPackage is an SQLite database, whose latest changes may lie in its write-ahead log.
# Styles (.qml, .qmd) and world files are left alone: they are their owner's.
SUFFIXES = {
    ".gpkg": ("-wal", "-shm", "-journal"),
    ".tif": (".aux.xml", ".ovr", ".msk", ".msk.ovr"),
}


def companions(path: Path) -> Iterator[Path]:
    """The files that belong to ``path`` and to no other file, whether they exist or not."""
    for suffix in SUFFIXES.get(path.suffix, ()):
        yield path.with_name(path.name + suffix)


def check_unused(path: Path) -> None:
    """Raise UserError if another program has locked ``path`` or one of its companions.

    SQLite locks bytes of the database and of its -shm for as long as a layer is open in WAL mode
    (as in QGIS), or is being written. A file system without locks cannot tell.
    """
    if os.name != "posix":  # Windows refuses to replace a file that is open
        return
    import fcntl

    for file in (path, *companions(path)):
        with (
            suppress(FileNotFoundError, PermissionError, IsADirectoryError),
            file.open("rb+") as held,
        ):
            try:
                fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{path}: is open in another program, which would mix its changes with the "
                    "new file. Close it there (in QGIS: remove the layer, or close the project), "
                    "and run the same command again; or choose another --out."
                ) from None
            except OSError:
                return


def remove_companions(path: Path) -> None:
    """Remove what an older file of this name left behind; it would be read as part of a new one."""
    for file in companions(path):
        file.unlink(missing_ok=True)
