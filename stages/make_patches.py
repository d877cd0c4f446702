"""Cut one patch from every tile of the dataset in params.yaml into patches/{train,val,test}."""

from __future__ import annotations

import time
from pathlib import Path

from roofseg.core.progress import track
from roofseg.core.terminal import warn
from roofseg.cutting.cut import make_patches
from roofseg.recipe.parsing import read_params
from stages import run


def main() -> None:
    """Make the patches; print warnings to stderr."""
    params = read_params(Path("params.yaml"))
    start = time.monotonic()
    counts = make_patches(
        Path("data") / params.dataset,
        Path("patches"),
        patch_size=params.patch_size,
        min_building_fraction=params.min_building_fraction,
        warn=warn,
        progress=track,
    )
    made = ", ".join(f"{count} of {split}" for split, count in counts.items())
    seconds = time.monotonic() - start
    print(f"patches: {made}, in {seconds:.1f} s; look at patches/overview.png")


if __name__ == "__main__":
    run(main, reads_tiles=True)
