"""Sources of the Inria tiles: a folder with the unpacked dataset, or a mirror on huggingface.co.

A `TileSource` copies or downloads one file at a time; `roofseg.inria.austin` checks the files.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from roofseg.core.errors import UserError
from roofseg.core.hub import hub_file

HUB = "blanchon/INRIA-Aerial-Image-Labeling"  # a dataset on huggingface.co
FIRST = "images/austin1.tif"  # the file whose metadata names the hub's newest commit
INNER_ZIP = "NEW2-AerialImageDataset.zip"  # the only file in the official 7z archive
# Places of the folder train, relative to the folder that the user names: as the zip unpacks, in
# AerialImageDataset, as on the hub, or the named folder itself.
TREES = ("AerialImageDataset/train", "train", "data/train", ".")


class TileSource(Protocol):
    """A place to get the tiles from.

    Attributes:
        name: for messages
        revision: the commit of the hub's repository; "" for a folder
    """

    name: str
    revision: str

    def fetch(self, file: str, target: Path) -> None:
        """Write a file of the source to ``target``.

        ``file`` is a path in the dataset's folder train, such as images/austin1.tif. Raises
        UserError if the source has no such file or cannot be read.
        """


def open_source(
    path: Path | None, cache: Path, *, revision: str, endpoint: str | None
) -> TileSource:
    """Open the source that the user chose.

    Args:
        path: the folder of the unpacked dataset (see `find_train`); None for the mirror on
            huggingface.co
        cache: a folder for unfinished downloads, on the same disk as the tiles
        revision: the commit of the mirror; "" for the newest
        endpoint: the URL of the hub; None for the default of huggingface_hub

    Raises:
        UserError: there is no unpacked dataset in ``path``, or the mirror does not answer
    """
    if path is None:
        return _Hub(cache, revision, endpoint)
    return _Folder(find_train(path))


def find_train(path: Path) -> Path:
    """Find the dataset's folder train, which holds images/ and gt/, in the folder ``path``.

    Raises:
        UserError: ``path`` does not exist, is an archive, or holds no such folder; for archives the
            message gives the commands that unpack them
    """
    expected = "the folder of the unpacked dataset, AerialImageDataset (INRIA_SOURCE)"
    if not path.exists():
        raise UserError(f"{path}: no such folder; expected {expected}.")
    if path.is_file():
        raise UserError(f"{path}: found a file; expected {expected}. {_how_to_unpack(path)}")
    for tree in TREES:
        if (path / tree / "images").is_dir() and (path / tree / "gt").is_dir():
            return path / tree
    archives = sorted([*path.glob("*.zip"), *path.glob("*.7z"), *path.glob("*.7z.001")])
    found = ", ".join(archive.name for archive in archives) or "no images/ and gt/ in it"
    remedy = f" {_how_to_unpack(archives[-1])}" if archives else ""
    raise UserError(f"{path}: found {found}; expected {expected}.{remedy}")


def _how_to_unpack(archive: Path) -> str:
    """Say which commands unpack the dataset's zip, or the 7z archive that contains it."""
    folder, name = shlex.quote(str(archive.parent)), shlex.quote(archive.name)
    commands = [f"cd {folder}"]
    if archive.suffix != ".zip":
        commands.append(f"7z x {name}")
        name = INNER_ZIP
    commands.append(f"unzip {name}")
    return f"Unpack the archive with `{' && '.join(commands)}`, then set INRIA_SOURCE={folder}."


class _Folder:
    """The source that copies files from the dataset's unpacked folder train."""

    revision = ""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)

    def fetch(self, file: str, target: Path) -> None:
        if not (self.folder / file).is_file():
            raise UserError(
                f"{self.folder / file}: no such file; expected all tiles of the dataset. Unpack "
                "its archive again."
            )
        shutil.copyfile(self.folder / file, target)


class _Hub:
    """The source that downloads from the mirror on huggingface.co; see `open_source`."""

    def __init__(self, cache: Path, revision: str, endpoint: str | None) -> None:
        self.cache, self.endpoint = cache, endpoint
        self.revision = revision or self._newest_commit()
        self.name = f"{HUB} on {endpoint or 'the hub'}, commit {self.revision}"

    def fetch(self, file: str, target: Path) -> None:
        with self._failures_named(file):
            downloaded = hub_file(
                HUB,
                f"data/train/{file}",
                repo_type="dataset",
                revision=self.revision,
                cache_dir=self.cache,
                endpoint=self.endpoint,
            )
        downloaded.replace(target)

    def _newest_commit(self) -> str:
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
        """Turn any error of a download into a UserError that names the file."""
        try:
            yield
        # The errors of huggingface_hub, its HTTP client and its xet library have no common base.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"data/train/{file} of {HUB} on {self.endpoint or 'the hub'} could not be "
                f"downloaded ({type(error).__name__}: {reason}). Run the stage again with a "
                "network, and it continues after the tiles that are already in place. Or unpack "
                "the dataset and set the environment variable INRIA_SOURCE to its folder "
                "(docs/study.md)."
            ) from None
