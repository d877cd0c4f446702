"""Download files from huggingface.co."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from roofseg.core.files import sha256_file


def commit_of(repository: str, file: str, revision: str | None = None) -> str:
    """The commit (40 hex digits) that a revision of a file on huggingface.co is now at.

    Errors of huggingface_hub have no common base.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url  # takes half a second

    commit = get_hf_file_metadata(hf_hub_url(repository, file, revision=revision)).commit_hash
    if not commit:
        raise ConnectionError(f"no commit of {repository} was stated")
    return commit


def hub_file(repository: str, file: str, **options: Any) -> Path:
    """Download a file, or take it from the cache of huggingface_hub; returns the cached file.

    ``options`` are those of `huggingface_hub.hf_hub_download`. Its errors have no common base; a
    file of another SHA-256 than the hub states is removed and raises ConnectionError.
    """
    from huggingface_hub import hf_hub_download  # takes half a second

    path = Path(hf_hub_download(repository, file, **options)).resolve()
    # The cache names a large file by the SHA-256 that the hub states for it.
    if re.fullmatch(r"[0-9a-f]{64}", path.name) and (found := sha256_file(path)) != path.name:
        path.unlink()
        raise ConnectionError(f"the download has SHA-256 {found}, expected {path.name}")
    return path
