"""make_patches on tiles of 5000 x 5000 px, with crops off centre, against reading whole tiles.

``python -m benchmarks.cutting ours|plain FOLDER`` cuts all tiles once.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.transform import from_origin

from benchmarks.table import Measured, Row, measure_one, median_ratio, ours_and_plain
from roofseg.core.images import write_jpeg, write_png
from roofseg.cutting.cut import make_patches

SIZE, PATCH, FRACTION = 5000, 1024, 0.05
TILES = {"a": "train", "b": "val", "c": "test"}  # make_patches needs all three splits
LIMIT_MB = 300
PLAIN = "reading both whole with rasterio, summed-area table of the full mask"


def rows(folder: Path) -> list[Row]:
    write_dataset(folder)
    ours, plain = ours_and_plain("benchmarks.cutting", folder)
    times = median_ratio(plain.seconds, ours.seconds)

    def cell(measured: Measured) -> str:
        per_tile = statistics.median(measured.seconds) / len(TILES)
        return f"{per_tile:.3g} s, {measured.peak_mb:.0f} MB"

    return [
        Row(
            f"make_patches, one {SIZE} x {SIZE} px tile with its mask (a third of three)",
            PLAIN,
            f"faster, under {LIMIT_MB} MB",
            cell(ours),
            cell(plain),
            f"{times:.2f}x",
            times > 1 and ours.peak_mb < LIMIT_MB,
        )
    ]


def write_dataset(folder: Path) -> None:
    """Write tiles like those of the Inria dataset (uncompressed, in strips), a roof off centre."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (3, SIZE, SIZE), dtype=np.uint8)
    mask = np.zeros((1, SIZE, SIZE), np.uint8)
    mask[:, 200:1200, 300:1100] = 255
    for place, name in enumerate(TILES):
        for kind, pixels in {"imgs": image + np.uint8(place), "msks": mask}.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            with rasterio.open(
                folder / kind / f"{name}.tif",
                "w",
                driver="GTiff",
                width=SIZE,
                height=SIZE,
                count=len(pixels),
                dtype="uint8",
                interleave="pixel",
                crs="EPSG:32614",
                transform=from_origin(621_000 + 1500 * place, 3_350_000, 0.3, 0.3),
            ) as target:
                target.write(pixels)
    lines = "".join(f"{name},{split}\n" for name, split in TILES.items())
    (folder / "split.csv").write_text(f"tile,split\n{lines}")
    (folder / "nudges.csv").write_text("tile,row,col\n")


def ours(folder: Path) -> float:
    start = time.perf_counter()
    make_patches(
        folder,
        folder / "patches",
        patch_size=PATCH,
        min_building_fraction=FRACTION,
        warn=lambda _: None,
    )
    return time.perf_counter() - start


def plain(folder: Path) -> float:
    start = time.perf_counter()
    for name in TILES:
        with rasterio.open(folder / "imgs" / f"{name}.tif") as source:
            image = source.read().transpose(1, 2, 0)
        with rasterio.open(folder / "msks" / f"{name}.tif") as source:
            mask = (source.read(1) > 0).astype(np.uint8)
        table = cv2.integral(mask)
        counts = (
            table[PATCH:, PATCH:]
            - table[:-PATCH, PATCH:]
            - table[PATCH:, :-PATCH]
            + table[:-PATCH, :-PATCH]
        )
        rows, cols = np.nonzero(counts >= FRACTION * PATCH**2)
        centre = (SIZE - PATCH) // 2
        best = np.argmin((rows - centre) ** 2 + (cols - centre) ** 2)
        window = np.s_[rows[best] : rows[best] + PATCH, cols[best] : cols[best] + PATCH]
        write_jpeg(folder / f"{name}.jpg", image[window])
        write_png(folder / f"{name}.png", mask[window] * np.uint8(255))
    return time.perf_counter() - start


if __name__ == "__main__":
    measure_one(ours, plain)
