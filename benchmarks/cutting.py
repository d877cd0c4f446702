"""make_patches on tiles of 5000 x 5000 px, with crops off centre, against reading whole tiles.

``python -m benchmarks.cutting ours|plain FOLDER`` cuts all tiles once and prints the seconds and
the peak memory. It has its own process, so that the peak is that of this run alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.transform import from_origin

from benchmarks.table import Row, alternate, child, median_ratio
from roofseg.core.images import write_jpeg, write_png
from roofseg.cutting.cut import make_patches

SIZE, PATCH, FRACTION = 5000, 1024, 0.05
TILES = {"a": "train", "b": "val", "c": "test"}  # make_patches needs all three splits
LIMIT_MB = 300
PLAIN = "reading both whole with rasterio, summed-area table of the full mask"


def rows(folder: Path) -> list[Row]:
    write_dataset(folder)
    peaks: dict[str, list[float]] = {"ours": [], "plain": []}

    def cut(how: str) -> float:
        seconds, peak = map(float, child("-m", "benchmarks.cutting", how, str(folder)).split())
        peaks[how].append(peak)
        return seconds / len(TILES)

    ours, plain = alternate(lambda: cut("ours"), lambda: cut("plain"))
    times, most = median_ratio(plain, ours), {how: max(each) for how, each in peaks.items()}
    return [
        Row(
            f"make_patches, one {SIZE} x {SIZE} px tile with its mask (a third of three)",
            PLAIN,
            f"faster, under {LIMIT_MB} MB",
            f"{statistics.median(ours):.3g} s, {most['ours']:.0f} MB",
            f"{statistics.median(plain):.3g} s, {most['plain']:.0f} MB",
            f"{times:.2f}x",
            times > 1 and most["ours"] < LIMIT_MB,
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


def ours(folder: Path) -> None:
    make_patches(
        folder,
        folder / "patches",
        patch_size=PATCH,
        min_building_fraction=FRACTION,
        warn=lambda _: None,
    )


def plain(folder: Path) -> None:
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


def peak_mb() -> float:
    """Peak memory of this process, MB (10^6 bytes); getrusage would include its parent's at the "
    "fork."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux
        return float("nan")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    how, where = sys.argv[1:]
    start = time.perf_counter()
    {"ours": ours, "plain": plain}[how](Path(where))
    print(time.perf_counter() - start, peak_mb())
