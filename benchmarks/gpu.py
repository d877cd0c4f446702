"""Training steps of the study's five attempts on a GPU: ``python -m benchmarks.gpu``.

At 1024 px, with random images and weights, since only time, memory and arithmetic are measured.
Each attempt runs at its own batch size, then with another precision, without deterministic
algorithms, compiled, and at twice the batch. Writes benchmarks/gpu.md. Takes minutes on an H100.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from roofseg.core.files import write_text
from roofseg.models.roof_model import build_model
from roofseg.recipe.params import Recipe
from roofseg.recipe.parsing import parse_params
from roofseg.training.loss import BceDiceLoss
from stages import ROOT

SIZE, STEPS = 1024, 10
# Dense 16-bit peak in TFLOP/s, by a part of the device's name (NVIDIA's data sheets).
PEAKS = {"H100": 989, "H200": 989, "A100": 312, "L4": 121, "T4": 65}


@dataclass(frozen=True)
class Variant:
    """How a step is done; the defaults are those of the recipe on such a GPU."""

    batch: int
    precision: torch.dtype = torch.bfloat16
    deterministic: bool = True
    compiled: bool = False

    def __str__(self) -> str:
        words = [f"batch {self.batch}", str(self.precision).removeprefix("torch.")]
        words += [] if self.deterministic else ["not deterministic"]
        return ", ".join(words + (["compiled"] if self.compiled else []))


def variants(batch: int) -> list[Variant]:
    plain = Variant(batch)
    fast = replace(plain, deterministic=False)
    return [
        *(plain, fast, replace(fast, compiled=True)),
        *(replace(plain, precision=each) for each in (torch.float16, torch.float32)),
        replace(plain, batch=2 * batch),
    ]


def stepper(recipe: Recipe, variant: Variant) -> Callable[[], None]:
    """Make a training step of the recipe after the thaw, on data in GPU memory."""
    torch.manual_seed(0)
    model = build_model(
        recipe.architecture, recipe.encoder, dropout=recipe.dropout, patch_size=SIZE
    )
    model = model.cuda().to(memory_format=torch.channels_last)
    model.freeze_encoder(recipe.thaw_epoch is None)
    loss = BceDiceLoss(recipe.bce_weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr)
    scaler = torch.amp.GradScaler(enabled=variant.precision is torch.float16)
    shape = (variant.batch, SIZE, SIZE)
    images = torch.rand((variant.batch, 3, SIZE, SIZE), device="cuda")
    images = images.contiguous(memory_format=torch.channels_last)
    truth = torch.randint(0, 2, shape, dtype=torch.uint8, device="cuda")[:, None]
    forward = torch.compile(model) if variant.compiled else model
    mixed = variant.precision is not torch.float32

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", variant.precision, enabled=mixed):
            value = loss(forward(images), truth)
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        scaler.step(optimizer)
        scaler.update()

    return step


def measure(recipe: Recipe, variant: Variant) -> tuple[float, float, float]:
    """Median time of a step (ms), peak memory (GB), and seconds until steps are fast."""
    torch.use_deterministic_algorithms(variant.deterministic, warn_only=True)
    start = time.perf_counter()
    step = stepper(recipe, variant)
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    ready = time.perf_counter() - start
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times), torch.cuda.max_memory_allocated() / 1e9, ready


def main() -> None:
    name = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAKS.items() if key in name), None)
    text = (ROOT / "profiles" / "inria.yaml").read_text(encoding="utf-8")
    params = parse_params(text, source="profiles/inria.yaml")
    lines = [
        "# Speed on a GPU",
        "",
        f"Training step at {SIZE} px on {name}, torch {torch.__version__}: median of {STEPS}, "
        "written by `python -m benchmarks.gpu`. Per cent of peak: the arithmetic of the step "
        f"(torch's FlopCounterMode) over its time, of {peak} TFLOP/s (dense 16-bit). The first row "
        "of an attempt is what its recipe does; ready is the time until the steps are fast.",
        "",
        "| attempt | step | ms | ms per image | % of peak | GB | ready, s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for attempt in params.attempts:
        recipe = params.recipe(attempt)
        with FlopCounterMode(display=False) as counter:
            stepper(recipe, Variant(recipe.batch_size, deterministic=False))()
        for variant in variants(recipe.batch_size):
            tflop = counter.get_total_flops() / 1e12 * variant.batch / recipe.batch_size
            ms, memory, ready = measure(recipe, variant)
            share = f"{100 * tflop / (ms / 1000) / peak:.0f}" if peak else ""
            lines.append(
                f"| `{attempt}` | {variant} | {ms:.1f} | {ms / variant.batch:.1f} | {share} "
                f"| {memory:.1f} | {ready:.0f} |"
            )
            print(lines[-1], flush=True)
            torch._dynamo.reset()
            torch.cuda.empty_cache()
    write_text(ROOT / "benchmarks" / "gpu.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
