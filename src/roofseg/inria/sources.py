"""Where the Inria tiles come from: a folder, the dataset's zip, its 7z archive, or a mirror.

Each is a `Source`, which gives one file after the other; `roofseg.inria.tiles` checks them.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file
from roofseg.inria.archives import Limit, extract_7z, extract_zipped, open_zip

HUB = "blanchon/INRIA-Aerial-Image-Labeling"  # a dataset on huggingface.co
FIRST = "images/austin1.tif"  # to ask the hub for its newest commit by
INNER_ZIP = "NEW2-AerialImageDataset.zip"  # what the official 7z archive holds
# Where the dataset's folder train may be in what a user names: unpacked, as on the hub, or itself.
TREES = ("AerialImageDataset/train", "train", "data/train", ".")


@dataclass(frozen=True)
class Limits:
    """For what archives unpack to: ``tile`` for a file of the zip, ``archive`` for the 7z's zip."""

    tile: Limit
    archive: Limit


class Source(Protocol):
    """A place that has the tiles; ``name`` and ``revision`` are for messages and the manifest."""

    name: str
    revision: str

    def fetch(self, file: str, target: Path) -> None:
        """Write ``file`` of the dataset's folder train, ``images/austin1.tif``, as ``target``."""


@contextmanager
def open_source(
    path: Path | None,
    scratch: Path,
    limits: Limits,
    *,
    room: int,
    revision: str,
    endpoint: str | None,
) -> Iterator[Source]:
    """A source to take files from inside the block.

    Args:
        path: what the user has of the dataset (see `find_source`); None for the mirror on
            huggingface.co
        scratch: a folder for what is on its way, on the disk of the tiles
        limits: of what an archive unpacks to
        room: bytes that the files will take
        revision: the mirror's commit, "" for its newest
        endpoint: the hub's URL; None for huggingface_hub's own choice

    Raises:
        UserError: the source is not there, or not what it should be; in the block, a file of it
    """
    if path is None:
        yield _Hub(scratch / "hub", revision, endpoint)
        return
    found = find_source(path)
    if found.is_dir():
        yield _Tree(found)
        return
    unpacked = found
    if found.suffix != ".zip":
        unpacked = scratch / INNER_ZIP
        _unpack(found, unpacked, limits.archive, room)
    with open_zip(unpacked) as archive:
        yield _Zip(archive, str(found), limits.tile)


def find_source(path: Path) -> Path:
    """The dataset's folder train, its zip, or the first part of its 7z archive, in ``path``.

    Raises:
        UserError: there is nothing of the kind, or more than one archive
    """
    kinds = f"{INNER_ZIP}, the parts of the 7z archive, or the folder that they were unpacked to"
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; expected {kinds} (INRIA_SOURCE).")
    if path.is_file():
        return path
    for tree in TREES:
        if (path / tree / "images").is_dir() and (path / tree / "gt").is_dir():
            return path / tree
    archives = sorted(path.glob("*.zip")) or sorted([*path.glob("*.7z.001"), *path.glob("*.7z")])
    if len(archives) != 1:
        found = ", ".join(each.name for each in archives) or "neither"
        raise UserError(
            f"{path}: expected {kinds}; found {found}. INRIA_SOURCE may also name the file itself."
        )
    return archives[0]


def _unpack(archive: Path, target: Path, limit: Limit, room: int) -> None:
    """Unpack the official 7z archive, with a bar: 20 GB take minutes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(target.name, total=None)
        extract_7z(
            archive,
            target.name,
            target,
            limit,
            room=room,
            report=lambda done, total: progress.update(task, completed=done, total=total),
        )


class _Tree:
    """The dataset's folder train, unpacked."""

    revision = ""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)

    def fetch(self, file: str, target: Path) -> None:
        if not (self.folder / file).is_file():
            raise UserError(f"{self.folder / file}: no such file. Is the dataset whole?")
        shutil.copyfile(self.folder / file, target)


class _Zip:
    """The zip, open."""

    revision = ""

    def __init__(self, archive: zipfile.ZipFile, name: str, limit: Limit) -> None:
        self.archive, self.name, self.limit = archive, name, limit

    def fetch(self, file: str, target: Path) -> None:
        extract_zipped(self.archive, f"train/{file}", target, self.limit)


class _Hub:
    """The mirror on huggingface.co, at the commit ``revision``, or at the newest if that is ""."""

    def __init__(self, cache: Path, revision: str, endpoint: str | None) -> None:
        self.cache, self.endpoint = cache, endpoint
        self.revision = revision or self._newest()
        self.name = f"{HUB} on {endpoint or 'the hub'}, commit {self.revision}"

    def fetch(self, file: str, target: Path) -> None:
        from huggingface_hub import hf_hub_download

        with self._failures_named(file):
            path = hf_hub_download(
                HUB,
                f"data/train/{file}",
                repo_type="dataset",
                revision=self.revision,
                cache_dir=self.cache,
                endpoint=self.endpoint,
            )
        blob = Path(path).resolve()
        # The cache names a large file by the SHA-256 that the hub gives for it.
        expected = blob.name
        if re.fullmatch(r"[0-9a-f]{64}", expected) and (found := sha256_file(blob)) != expected:
            raise UserError(
                f"{file} of {self.name}: the download has SHA-256 {found}, expected {expected}. It "
                "was removed: try again."
            )
        blob.replace(target)

    def _newest(self) -> str:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        with self._failures_named(FIRST):
            path = f"data/train/{FIRST}"
            url = hf_hub_url(HUB, path, repo_type="dataset", endpoint=self.endpoint)
            commit = get_hf_file_metadata(url, endpoint=self.endpoint).commit_hash
            if commit is None:
                raise ConnectionError("the answer names no commit, so it is not a hub's")
            return commit

    @contextmanager
    def _failures_named(self, file: str) -> Iterator[None]:
        try:
            yield
        # huggingface_hub's own errors, its HTTP client's and its xet library's share no base.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"data/train/{file} of {HUB} on {self.endpoint or 'the hub'} could not be had "
                f"({type(error).__name__}: {reason}). Run it again with a network to go on from "
                "the tiles that are there; or have the dataset in another way and name its folder "
                "or archive by the environment variable INRIA_SOURCE (README, 'The study')."
            ) from None
