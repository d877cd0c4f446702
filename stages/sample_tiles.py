"""Generate the sample dataset: synthetic tiles and their masks, as GeoTIFF."""

from __future__ import annotations

from pathlib import Path

from roofseg.core.progress import track
from roofseg.core.terminal import ArgumentParser
from roofseg.synthetic.tile import write_sample
from stages import run

FOLDER = Path("data/sample")


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.sample_tiles", description=__doc__)
    parser.add_argument("--tiles", type=int, required=True, help="number of tiles")
    parser.add_argument("--size", type=int, required=True, help="side of a tile in pixels")
    parser.add_argument("--seed", type=int, required=True, help="seed of the dataset")
    args = parser.parse_args()
    imgs, msks = FOLDER / "imgs", FOLDER / "msks"
    write_sample(imgs, msks, tiles=args.tiles, size=args.size, seed=args.seed, progress=track)
    print(f"{imgs}, {msks}: {args.tiles} tiles of {args.size} px")


if __name__ == "__main__":
    run(main)
