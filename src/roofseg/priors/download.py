"""Download one file that is identified by its SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file


@dataclass(frozen=True)
class Download:
    """A file to download, identified by the SHA-256 of its content."""

    name: str
    url: str
    size: int  # bytes
    sha256: str


def fetch(source: Download, folder: Path) -> Path:
    """Return the path of the file ``source`` in ``folder``; download the file if it is missing.

    An interrupted download (``NAME.part``) continues where it stopped, in this call or the next.

    Raises:
        UserError: an existing file of that name has other content (it is kept); the download
            failed; or the downloaded file has other content (it is removed)
    """
    from huggingface_hub.file_download import http_get  # resumes downloads, also from other servers

    path = folder / source.name
    if path.exists():
        found = sha256_file(path)
        if found != source.sha256:
            raise UserError(
                f"{path}: found {path.stat().st_size} bytes with SHA-256 {found}; expected "
                f"{source.size} bytes with SHA-256 {source.sha256}. It was not used: replace it, "
                f"or remove it to have it downloaded from {source.url}"
            )
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{source.name}.part"
    with part.open("ab") as file:
        if file.tell() > source.size:
            file.seek(0)
            file.truncate()
        try:
            http_get(
                source.url,
                file,
                resume_size=file.tell(),
                expected_size=source.size,
                displayed_filename=source.name,
            )
        except Exception as error:  # those of huggingface_hub and its client have no common base
            raise UserError(
                f"{source.url}: the download failed: {first_line(error)} ({file.tell()} bytes are "
                f"kept in {part}). Run the same again with a network to continue, or put the file "
                f"at {path} by hand (SHA-256 {source.sha256})."
            ) from None
    found = sha256_file(part)
    if found != source.sha256:
        part.unlink()
        raise UserError(
            f"{source.url}: the download has SHA-256 {found}, expected {source.sha256}. It was "
            f"removed; try again, or put the file at {path} by hand"
        )
    return part.rename(path)


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
