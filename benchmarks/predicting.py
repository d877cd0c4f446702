"""`roofseg predict` with U-Net on ResNet34, against two baselines.

They are the bare model on the same batches, and a plain loop over a whole tile in memory.

``python -m benchmarks.predicting ours|plain TILE.tif`` predicts one tile.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import rasterio
from rasterio.transform import from_origin

from benchmarks.table import Row, alternate, measure_one, median_ratio, ours_and_plain
from roofseg.core.files import write_json
from roofseg.inference.predictor import Images, Predictor, Probabilities
from roofseg.mapping.predict import Options, predict_raster
from roofseg.sliding_window.blocks import predict_blocks
from roofseg.sliding_window.imagery import open_imagery

if TYPE_CHECKING:
    from roofseg.inference.torch_predictor import TorchPredictor

ENCODER, WINDOW, BATCH = "resnet34", 512, 4
SIZE = 5000  # of a tile of the study
LEAST = 0.85
OPTIONS = Options(batch_size=BATCH)
PLAIN = "plain loop: tile and result whole in memory, windows side by side, float32, NCHW"


def rows(folder: Path) -> Iterator[Row]:
    tile = write_tile(folder / "tile.tif")
    yield against_bare(tile, folder / "out.tif")
    yield against_plain(tile)
    yield from against_torch(folder)


def against_bare(tile: Path, out: Path) -> Row:
    predictor = make_predictor()
    batches: list[Images] = []

    def record(images: Iterator[Images]) -> Iterator[Probabilities]:
        for batch in images:
            batches.append(batch)
            yield np.zeros(batch.shape[:3], np.float32)

    with open_imagery(str(tile)) as imagery:
        for _ in predict_blocks(imagery, WINDOW, record, batch_size=BATCH):
            pass

    def bare() -> None:
        for batch in batches:
            predictor(batch)

    ours, least = alternate(
        partial(predict_raster, predictor, str(tile), out, OPTIONS), bare, rounds=2, warm_up=0
    )
    share = median_ratio(least, ours)
    return Row(
        f"predict: {SIZE} x {SIZE} px to a mask, U-Net ResNet34, windows of {WINDOW} px",
        "bare model on the same batches in memory",
        f"at least {LEAST} of its speed",
        *(f"{SIZE**2 / 1e6 / statistics.median(each):.3g} MP/s" for each in (ours, least)),
        f"{share:.2f}x",
        share >= LEAST,
    )


def against_plain(tile: Path) -> Row:
    ours, plain = ours_and_plain("benchmarks.predicting", tile, rounds=1, warm_up=0)
    return Row(
        f"predict: {SIZE} x {SIZE} px to a mask, {OPTIONS.overlap:.0%} overlap",
        PLAIN,
        "",
        *(
            f"{SIZE**2 / 1e6 / statistics.median(run.seconds):.3g} MP/s, {run.peak_mb:.0f} MB"
            for run in (ours, plain)
        ),
        f"{median_ratio(plain.seconds, ours.seconds):.2f}x",
        None,
    )


def against_torch(folder: Path) -> Iterator[Row]:
    """A batch by onnxruntime, against torch in float32 and in the precision that it chooses."""
    from roofseg.mapping import onnx_predictor
    from roofseg.mapping.onnx_export import export
    from roofseg.models.roof_model import save_model

    for encoder in (ENCODER, "tu-tf_efficientnet_lite0"):
        models = {each: make_predictor(encoder, each) for each in ("32-true", "auto")}
        model = folder / encoder
        save_model(model / "model.safetensors", models["32-true"].model)
        spec = {"architecture": "unet", "encoder": encoder, "dropout": 0.3}
        about = {"attempt": encoder, "digest": "", "dataset": "", "patch_size": WINDOW, "gsd": []}
        write_json(model / "recipe.json", {**about, "recipe": spec})
        path = folder / f"{encoder}.onnx"
        export(model, path, tolerance=0.01)  # random weights enlarge differences of rounding
        exported = onnx_predictor.load(path, device="cpu")
        images = np.random.default_rng(0).integers(0, 256, (BATCH, WINDOW, WINDOW, 3), np.uint8)
        for torch_model in models.values():
            ours, least = alternate(
                partial(call, exported, images), partial(call, torch_model, images), rounds=5
            )
            precision = torch_model.provenance["ROOFSEG_PRECISION"]
            yield Row(
                f"{BATCH} windows of {WINDOW} px by onnxruntime, float32, U-Net {encoder}, CPU",
                f"torch, {precision}",
                "",
                *(f"{statistics.median(each):.3g} s" for each in (ours, least)),
                f"{median_ratio(least, ours):.2f}x",
                None,
            )


def call(predictor: Predictor, images: Images) -> None:
    predictor(images)


def write_tile(path: Path) -> Path:
    """Write smooth colours, which compress like aerial images, as a tiled GeoTIFF."""
    coarse = np.random.default_rng(0).integers(0, 255, (SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=SIZE,
        height=SIZE,
        count=3,
        dtype="uint8",
        tiled=True,
        compress="deflate",
        crs="EPSG:32614",
        transform=from_origin(621_000, 3_350_000, 0.3, 0.3),
    ) as target:
        target.write(image.transpose(2, 0, 1))
    return path


def make_predictor(encoder: str = ENCODER, precision: str = "auto") -> TorchPredictor:
    import torch

    from roofseg.inference.torch_predictor import TorchPredictor
    from roofseg.models.device import keep_freed_memory, resolve_precision
    from roofseg.models.roof_model import build_model

    torch.manual_seed(0)
    model = build_model("unet", encoder, dropout=0.3, patch_size=WINDOW)
    keep_freed_memory()
    return TorchPredictor(model, window=WINDOW, precision=resolve_precision(precision, "cpu"))


def ours(tile: Path) -> float:
    predictor = make_predictor()
    start = time.perf_counter()
    predict_raster(predictor, str(tile), tile.with_name("out.tif"), OPTIONS)
    return time.perf_counter() - start


def plain(tile: Path) -> float:
    """A straightforward first version."""
    import torch

    from roofseg.models.roof_model import build_model

    model = build_model("unet", ENCODER, dropout=0.3, patch_size=WINDOW).eval()
    start = time.perf_counter()
    with rasterio.open(tile) as source:
        image, profile = source.read(), source.profile
    height, width = image.shape[1:]
    padding = ((0, 0), (0, -height % WINDOW), (0, -width % WINDOW))
    image = np.pad(image, padding, mode="reflect")
    mask = np.zeros(image.shape[1:], np.uint8)
    places = [
        np.s_[row : row + WINDOW, col : col + WINDOW]
        for row in range(0, height, WINDOW)
        for col in range(0, width, WINDOW)
    ]
    with torch.no_grad():
        for first in range(0, len(places), BATCH):
            some = places[first : first + BATCH]
            batch = np.stack([image[:, *place] for place in some])
            found = model(torch.from_numpy(batch).float() / 255)[:, 0].sigmoid() >= 0.5
            for place, each in zip(some, found.numpy(), strict=True):
                mask[place] = each
    with rasterio.open(tile.with_name("plain.out.tif"), "w", **{**profile, "count": 1}) as target:
        target.write(mask[:height, :width], 1)
    return time.perf_counter() - start


if __name__ == "__main__":
    measure_one(ours, plain)
