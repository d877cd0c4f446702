"""Put the 36 Austin tiles of the Inria Aerial Image Labeling Dataset into data/inria.

If the environment variable INRIA_SOURCE names the folder of the unpacked dataset, the tiles come
from there; otherwise they are downloaded from a mirror on huggingface.co.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from roofseg.core.files import user_path
from roofseg.inria.austin import bring_tiles
from stages import run


def main() -> None:
    folder = os.environ.get("INRIA_SOURCE", "")
    source = user_path(folder) if folder else None
    # Flush, so that users see the terms of use before the download starts.
    bring_tiles(Path("data/inria"), source, say=partial(print, flush=True))


if __name__ == "__main__":
    run(main, reads_tiles=True)
