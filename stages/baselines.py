"""Score the baselines on val: the best constant mask and a colour threshold fitted on train."""

from __future__ import annotations

from pathlib import Path

from roofseg.baselines import baselines
from roofseg.core.files import write_json
from roofseg.patches import read_patches
from stages import run


def main() -> None:
    train, val = (read_patches(Path("patches") / split) for split in ("train", "val"))
    write_json(Path("metrics/baselines.json"), baselines(train, val))


if __name__ == "__main__":
    run(main)
