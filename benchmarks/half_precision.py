"""Whether models map val the same in bfloat16 as in float32, on this CPU.

``python -m benchmarks.half_precision models/sam_conv models/sam_unet`` prints a row for each model:
val IoU in both precisions, the IoU of the two masks with each other, and by how much probabilities
differ. `benchmarks.gpu` compares the times of both precisions on a GPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from roofseg.inference.torch_predictor import load
from roofseg.metrics import THRESHOLD, count, iou
from roofseg.patches import read_patches

HEADER = (
    "| model | val IoU, float32 | val IoU, bfloat16 | IoU of the two masks, worst tile | "
    "largest difference of a probability | its mean |"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.half_precision", description=__doc__
    )
    parser.add_argument("models", nargs="+", type=Path, help="folders of trained models")
    print(HEADER, "| --- " + "| ---: " * 5 + "|", sep="\n")
    for folder in parser.parse_args().models:
        print(row(folder), flush=True)


def row(folder: Path) -> str:
    """A row of the table, about patches/val."""
    patches = read_patches(Path("patches/val"))
    truth = np.stack([patch.mask for patch in patches])
    full, half = (
        np.concatenate([predictor(patch.image[None]) for patch in patches])
        for predictor in (
            load(folder, device="cpu", precision="32-true"),
            load(folder, device="cpu", precision="bf16-mixed"),
        )
    )
    scores = [iou(*count(found[:, None], truth[:, None])[:3]).mean() for found in (full, half)]
    same = iou(*count(half[:, None], (full >= THRESHOLD)[:, None].astype(np.uint8))[:3]).min()
    off = np.abs(full - half)
    return (
        f"| {folder.name} | {scores[0]:.4f} | {scores[1]:.4f} | {same:.4f} | {off.max():.3f} | "
        f"{off.mean():.5f} |"
    )


if __name__ == "__main__":
    main()
