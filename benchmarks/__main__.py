"""Run all benchmarks and write benchmarks/results.md.

Each compares what the project does with the plain way to do the same. The two alternate within one
call and their medians are compared, so that a machine whose speed drifts does not decide.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import rasterio
import segmentation_models_pytorch as smp
import torch
from rasterio.transform import from_origin

from roofseg.augment import Augmenter
from roofseg.cutting import make_patches
from roofseg.device import resolve_precision
from roofseg.files import read_image, read_mask, write_jpeg, write_png, write_text
from roofseg.losses import BceDiceLoss
from roofseg.models import build_model
from stages import ROOT

ROUNDS = 5
ENCODER = "resnet34"
Run = Callable[[], float | None]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [cutting(Path(folder) / "cutting"), training_step(Path(folder) / "step"), opening()]
    lines = [
        "# Speed",
        "",
        f"Medians of {ROUNDS} alternating runs on {machine()}. Written by `make bench`.",
        "",
        "| what | ours, s | plain baseline | plain, s | ratio plain / ours |",
        "| --- | ---: | --- | ---: | ---: |",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    write_text(ROOT / "benchmarks" / "results.md", text)
    print(text)


def machine() -> str:
    cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} x {cpu}{gpu}, torch {torch.__version__}"


def row(what: str, baseline: str, ours: Run, plain: Run) -> str:
    """A line of the table. A run that returns seconds timed itself."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(ROUNDS + 1):
        for run, taken in zip((ours, plain), times, strict=True):
            start = time.perf_counter()
            seconds = run()
            if round_:  # the first is a warm-up
                taken.append(time.perf_counter() - start if seconds is None else seconds)
    a, b = (statistics.median(each) for each in times)
    return f"| {what} | {a:.2f} | {baseline} | {b:.2f} | {b / a:.2f} |"


def cutting(folder: Path) -> str:
    """One 5000 x 5000 px tile and its mask, whose crop has to slide."""
    rng = np.random.default_rng(0)
    size, patch = 5000, 1024
    image = rng.integers(0, 255, (3, size, size), dtype=np.uint8)
    mask = np.zeros((size, size), np.uint8)
    mask[200:1200, 300:1100] = 255
    for kind, pixels in {"imgs": image, "msks": mask[None]}.items():
        (folder / kind).mkdir(parents=True)
        for place, name in enumerate("abc"):
            with rasterio.open(
                folder / kind / f"{name}.tif", "w", driver="GTiff", width=size, height=size,
                count=len(pixels), dtype="uint8", compress="deflate", tiled=True,
                crs="EPSG:32614", transform=from_origin(621000 + 1500 * place, 3350000, 0.3, 0.3),
            ) as target:  # fmt: skip
                target.write(pixels + np.uint8(place) if kind == "imgs" else pixels)
    (folder / "split.csv").write_text("tile,split\na,train\nb,val\nc,test\n")
    (folder / "nudges.csv").write_text("tile,row,col\n")

    def ours() -> None:
        out = folder / "patches"
        make_patches(folder, out, patch_size=patch, min_building_fraction=0.05, warn=lambda _: None)

    def plain() -> None:
        for name in "abc":
            with rasterio.open(folder / "imgs" / f"{name}.tif") as source:
                pixels = source.read()
            with rasterio.open(folder / "msks" / f"{name}.tif") as source:
                truth = source.read(1) > 0
            table = cv2.integral(truth.astype(np.uint8))
            full = (
                table[patch:, patch:] - table[:-patch, patch:]
                - table[patch:, :-patch] + table[:-patch, :-patch]
            )  # fmt: skip
            rows, cols = np.nonzero(full >= 0.05 * patch**2)
            centre = (size - patch) // 2
            best = np.argmin((rows - centre) ** 2 + (cols - centre) ** 2)
            window = np.s_[rows[best] : rows[best] + patch, cols[best] : cols[best] + patch]
            write_jpeg(folder / f"{name}.jpg", pixels.transpose(1, 2, 0)[window])
            write_png(folder / f"{name}.png", truth[window].astype(np.uint8) * 255)

    what = "make_patches, three tiles of 5000 x 5000 px (with its overview)"
    return row(what, "read both whole, summed-area table of the mask", ours, plain)


def training_step(folder: Path) -> str:
    """A training step of U-Net on ResNet34, four patches of 512 px, on this machine's CPU."""
    rng = np.random.default_rng(0)
    size, batch = 512, 4
    image = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
    mask = np.zeros((size, size), np.uint8)
    mask[100:300, 50:400] = 1
    write_jpeg(folder / "a.jpg", image)
    write_png(folder / "a.png", mask * np.uint8(255))
    augment, loss = Augmenter("medium"), BceDiceLoss(0.5)
    bf16 = resolve_precision("auto", "cpu") == "bf16-mixed"

    def step(model: torch.nn.Module, images: torch.Tensor, truth: torch.Tensor) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        loss(model(images), truth).backward()
        optimizer.step()

    fast = build_model("unet", ENCODER, dropout=0.3, patch_size=size)
    fast = fast.to(memory_format=torch.channels_last)
    slow = smp.Unet(ENCODER, encoder_weights=None)

    def tensors(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks = (torch.from_numpy(np.stack(each)) for each in zip(*pairs, strict=True))
        return images.permute(0, 3, 1, 2).float() / 255, masks[:, None]

    def ours() -> None:
        images, truth = tensors([augment(image, mask, seed) for seed in range(batch)])
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            step(fast, images, truth)

    def plain() -> None:
        pairs = [
            augment(read_image(folder / "a.jpg"), read_mask(folder / "a.png"), seed)
            for seed in range(batch)
        ]
        images, truth = tensors(pairs)
        step(slow, images.contiguous(), truth)

    what = f"training step, U-Net ResNet34, {batch} x {size} px, CPU"
    return row(what, "float32, NCHW, decoded at every draw", ours, plain)


def opening() -> str:
    """Opening a file under the tripwire (`roofseg.guard`), in a process of its own."""
    code = (
        "import sys, time; from pathlib import Path; from roofseg import guard\n"
        "if sys.argv[1:]: guard.seal([Path('patches/test')], 'benchmark')\n"
        "start = time.perf_counter()\n"
        "for _ in range(20_000): open(guard.__file__).close()\n"
        "print(time.perf_counter() - start)"
    )

    def child(*arguments: str) -> float:
        command = [sys.executable, "-c", code, *arguments]
        environment = {"PYTHONPATH": str(ROOT / "src")}
        return float(subprocess.check_output(command, env=environment, text=True))

    what = "opening a file 20,000 times under the tripwire"
    return row(what, "without it", lambda: child("sealed"), child)


if __name__ == "__main__":
    main()
