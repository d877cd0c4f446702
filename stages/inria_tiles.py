"""Fetch the 36 Austin tiles of the Inria Aerial Image Labeling Dataset into data/inria.

They come from the unpacked dataset in the folder that the environment variable INRIA_SOURCE names;
if it is not set, from a mirror on huggingface.co.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from roofseg.core.files import user_path
from roofseg.inria.austin import fetch_tiles
from stages import run


def main() -> None:
    folder = os.environ.get("INRIA_SOURCE", "")
    source = user_path(folder) if folder else None
    # Flush, so that the terms of use appear before the tiles are fetched.
    fetch_tiles(Path("data/inria"), source, report=partial(print, flush=True))


if __name__ == "__main__":
    run(main, reads_tiles=True)
