"""Bring the 36 Austin tiles of the Inria Aerial Image Labeling Dataset into data/inria.

From what the environment variable INRIA_SOURCE names, the dataset's folder or archive; without it,
from a mirror on huggingface.co.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from roofseg.core.files import user_path
from roofseg.inria.archives import Limit
from roofseg.inria.sources import Limits
from roofseg.inria.tiles import bring
from stages import run

FOLDER = Path("data/inria")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.inria_tiles", description=__doc__)
    parser.add_argument(
        "--max-tile-mb", type=int, default=100, help="largest file taken from a zip (default 100)"
    )
    parser.add_argument(
        "--max-archive-gb", type=int, default=40, help="largest zip taken from a 7z (default 40)"
    )
    asked = parser.parse_args()
    limits = Limits(
        tile=Limit(asked.max_tile_mb * 10**6, "--max-tile-mb in data/dvc.yaml"),
        archive=Limit(asked.max_archive_gb * 10**9, "--max-archive-gb in data/dvc.yaml"),
    )
    named = os.environ.get("INRIA_SOURCE", "")
    source = user_path(named) if named else None
    bring(FOLDER, source, limits, say=partial(print, flush=True))  # the terms before the tiles


if __name__ == "__main__":
    run(main, reads_tiles=True)
