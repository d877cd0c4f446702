"""Single members of zip and 7z archives that come from elsewhere.

Nothing that an archive says of itself is believed: an archive with a member that points out of it
is refused as a whole, a member is written where the caller says and nowhere else, and none unpacks
to more bytes than a limit. Whatever is wrong is a UserError that names the archive.
"""

from __future__ import annotations

import errno
import io
import re
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write

CHUNK = 1 << 20  # bytes
SEVEN_ZIP_HEADER = struct.Struct("<6s2sIQQI")  # 7zFormat.txt, "SignatureHeader"
SEVEN_ZIP_SIGNATURE = b"7z\xbc\xaf\x27\x1c"


@dataclass(frozen=True)
class Limit:
    """How many ``bytes`` a member may unpack to, and the ``setting`` that a user raises it by."""

    bytes: int
    setting: str

    def check(self, size: int, member: str) -> None:
        """Raise UserError if a member that says it unpacks to ``size`` bytes is over the limit."""
        if size > self.bytes:
            raise UserError(
                f"{member}: unpacks to {size} bytes, more than the limit of {self.bytes}; it may "
                "be a decompression bomb. If it is what it should be, raise the limit: "
                f"{self.setting}."
            )


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise UserError unless the disk of ``folder`` has ``needed`` bytes free for ``what``."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB are free; {what} needs {needed / 1e9:.1f} GB. Make "
            "room there, or work on a larger disk."
        )


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip for reading; UserError where it is none, or has a member that leads out of it."""
    with _damage_named(path):
        archive = zipfile.ZipFile(path)
    with archive:
        check_names(archive.namelist(), path)
        yield archive


def extract_zipped(archive: zipfile.ZipFile, ending: str, target: Path, limit: Limit) -> None:
    """Write the one member of ``archive`` whose path ends with ``ending`` as the file ``target``.

    ``ending`` is a whole path or its last parts. The member's checksum (CRC-32) is verified.

    Raises:
        UserError: no member or more than one ends so; it is a link, over the limit, or damaged
    """
    path = Path(str(archive.filename))
    member = archive.getinfo(find_member(archive.namelist(), ending, path))
    limit.check(member.file_size, f"{path}, {member.filename}")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _no_file(path, member.filename)
    with (
        _damage_named(path),
        archive.open(member) as source,
        atomic_write(target) as scratch,
        scratch.open("wb") as file,
    ):
        shutil.copyfileobj(source, file, CHUNK)


def extract_7z(
    first: Path,
    ending: str,
    target: Path,
    limit: Limit,
    *,
    room: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the one member of a 7z archive whose path ends with ``ending`` as the file ``target``.

    The archive is unpacked as a stream; nothing else of it reaches the disk, and the member's
    checksum (CRC-32) is verified.

    Args:
        first: the archive, or its first part, NAME.7z.001; the others lie beside it
        ending: a whole path in the archive, or its last parts
        limit: for all members together
        room: bytes that have to stay free beside the file
        report: called with the bytes that are done and the bytes in all

    Raises:
        UserError: a part is missing or cut off, the archive is damaged or no 7z, its disk is too
            small, or as `extract_zipped`
    """
    py7zr = _py7zr()
    parts = volumes(first)
    _check_length(parts)
    with (
        _damage_named(first),
        _joined(parts) as stream,
        py7zr.SevenZipFile(stream, max_extract_size=limit.bytes) as archive,
    ):
        check_names(archive.getnames(), first)
        name = find_member(archive.getnames(), ending, first)
        members = archive.list()
        # What lies before the member has to be unpacked too.
        limit.check(sum(each.uncompressed for each in members), str(first))
        (member,) = (each for each in members if each.filename == name)
        if member.is_symlink or member.is_directory:
            raise _no_file(first, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        require_space(target.parent, member.uncompressed + room, f"{name} out of {first}")
        with atomic_write(target) as scratch, scratch.open("wb") as file:
            factory = _into(file, lambda done: report(done, member.uncompressed))
            archive.extract(targets=[name], factory=factory)


def find_member(names: Iterable[str], ending: str, archive: Path) -> str:
    """The one name that is ``ending`` or ends with it after a slash; UserError otherwise."""
    found = [name for name in names if f"/{name}".endswith(f"/{ending}")]
    if len(found) != 1:
        what = f"{len(found)} members are called so ({', '.join(found[:3])})" if found else "none"
        raise UserError(
            f"{archive}: expected one member {ending}, in whichever folder; found {what}. Is it "
            "the right archive, and whole?"
        )
    return found[0]


def check_names(names: Iterable[str], archive: Path) -> None:
    """Raise UserError if a name leads out of the archive: absolute, with a drive, or by ``..``."""
    for name in names:
        path = PureWindowsPath(name)  # takes / and \ for separators, as the one or other tool does
        if path.anchor or ".." in path.parts or "\0" in name:
            raise UserError(
                f"{archive}: holds a member {name!r}, which leads out of the archive. Such an "
                "archive is made to do harm; nothing of it was unpacked. Get it anew."
            )


def volumes(first: Path) -> list[Path]:
    """The parts of a 7z archive in order: ``first`` alone, or NAME.7z.001 and those beside it.

    Raises:
        UserError: a part between the first and the last is missing, or a file is called like a part
            and is none
    """
    if not re.fullmatch(r".*\.7z\.\d+", first.name):
        return [first]
    beside = sorted(first.parent.glob(f"{first.stem}.*"))  # as multivolumefile lists them
    for number, path in enumerate(beside, start=1):
        expected = f"{first.stem}.{number:03}"
        if path.name == expected:
            continue
        if re.fullmatch(r"\.\d{3,}", path.suffix):
            raise UserError(
                f"{first.with_name(expected)}: no such file, but {path.name} is there. Put all "
                "parts of the archive into one folder."
            )
        raise UserError(
            f"{path}: called like a part of {first.stem}, and none. Move it out of the folder, or "
            "finish its download."
        )
    if not beside:
        raise UserError(f"{first}: no such file; expected the first part of a 7z archive.")
    return beside


def _check_length(parts: list[Path]) -> None:
    """Raise UserError unless the parts are as long as the header of the first says."""
    with parts[0].open("rb") as file:
        head = file.read(SEVEN_ZIP_HEADER.size)
    if len(head) < SEVEN_ZIP_HEADER.size or not head.startswith(SEVEN_ZIP_SIGNATURE):
        raise UserError(f"{parts[0]}: not the start of a 7z archive. Get it anew.")
    *_, offset, size, _ = SEVEN_ZIP_HEADER.unpack(head)
    expected = SEVEN_ZIP_HEADER.size + offset + size
    found = sum(part.stat().st_size for part in parts)
    if found < expected:
        last = parts[-1].name
        raise UserError(
            f"{parts[0]}: found {found} bytes up to {last}; its header says {expected}. A part is "
            "missing or cut off: get it anew."
        )


@contextmanager
def _joined(parts: list[Path]) -> Iterator[IO[bytes]]:
    """The parts of a file, read as one."""
    if len(parts) == 1:
        with parts[0].open("rb") as file:
            yield file
        return
    import multivolumefile

    with (
        multivolumefile.MultiVolume(parts[0].with_suffix(""), mode="rb") as raw,
        # A read of the raw one ends where a part does; py7zr takes that for the file's end.
        io.BufferedReader(raw, CHUNK) as file,
    ):
        yield file


def _into(file: IO[bytes], report: Callable[[int], None]) -> Any:
    """What py7zr asks for a place to write a member: a factory, whose product is ``file``."""
    from py7zr.io import Py7zIO, WriterFactory

    class Writer(Py7zIO):
        def write(self, data: bytes | bytearray) -> int:
            written = file.write(data)
            report(file.tell())
            return written

        def read(self, size: int | None = None) -> bytes:
            raise io.UnsupportedOperation("read")

        def seek(self, offset: int, whence: int = 0) -> int:
            return file.seek(offset, whence)

        def flush(self) -> None:
            file.flush()

        def size(self) -> int:
            return file.tell()

    class Factory(WriterFactory):
        def create(self, filename: str) -> Py7zIO:
            return Writer()

    return Factory()


def _py7zr() -> Any:
    try:
        import py7zr
    except ImportError:
        raise UserError(
            "py7zr, which reads 7z archives, is not installed. Run `pip install py7zr`, or unpack "
            "the archive with another tool and name the folder instead."
        ) from None
    return py7zr


def _no_file(archive: Path, name: str) -> UserError:
    return UserError(f"{archive}: its member {name} is a link or a folder; expected a file.")


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Make what a damaged archive raises a UserError.

    Neither library promises which exceptions a damaged header ends in, and there are many. What
    the system says (no such file, disk full) is no damage, but for a position that cannot be.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise UserError(
            f"{path}: cannot be unpacked; it is cut off, damaged, encrypted or no archive of its "
            f"kind ({type(error).__name__}: {error}). Get it anew."
        ) from None
