"""Draw the pictures of README.md and docs/ from what `make repro` left in this project.

`make pictures` runs this in the root of the project. The project must hold the results of the sample,
whose tiles are generated: pictures of other tiles may not be passed on. No picture shows a tile of test.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyogrio.raw
import rasterio
import shapely
from matplotlib.figure import Figure
from PIL import Image as Pillow

from roofseg.core.images import Image, read_image
from roofseg.drawing import COLOURS, FALSE_ALARM, HIT, MISSED, colour, overlay, rendered, split_panel
from roofseg.patches import read_patches
from roofseg.recipe.params import read_params
from roofseg.report import charts
from roofseg.report.attempts import Attempt
from roofseg.report.leaderboard import Leaderboard, cost_values, read_leaderboard
from roofseg.studies.report import figures

OUT = Path(__file__).parent
INK, RULE, PAPER = "#1d1d1b", "#dcdcd6", "#ffffff"
LIMIT = 300_000  # bytes of a picture
GAP = 12  # pixels
FOOTPRINT = (255, 235, 0)

Label = tuple[str, str]  # text and colour
Cell = tuple[Image, Sequence[Label]]


def main() -> None:
    params = read_params(Path("params.yaml"))
    if params.dataset != "sample":
        sys.exit(f"params.yaml: dataset is {params.dataset}; pictures are made of sample alone")
    board = read_leaderboard(
        list(params.attempts),
        dataset=params.dataset,
        patch_size=params.patch_size,
        results=Path("metrics/attempts"),
        baselines=Path("metrics/baselines.json"),
    )
    val = board.leader.of_split("val")
    tile = str(val.buildings.idxmax())  # chosen by the truth, so that no attempt is favoured
    save("attempts.png", attempts_on(tile, board))
    save("map.png", map_of(tile, board.leader.name))
    save("overview.png", overview())
    folder = Path("predictions") / board.leader.name / "val" / "overlays"
    shown = [
        (read_image(folder / f"{name}.png"), [(f"{name}: IoU {iou:.2f}", INK)])
        for name, iou in val.iou.items()
    ]
    save("overlays.png", grid(shown, columns=3, side=260))
    save("budget.png", budget(list(params.attempts)))
    savings = [cost_values(attempt)["multiply_adds_per_megapixel"] or 0 for attempt in board.attempts]
    label = "billions of multiply-adds per megapixel"
    for name, chart in {
        "convergence": charts.convergence(board.attempts),
        "reliability": charts.reliability(board.attempts),
        "costs": charts.cost(board.attempts, [each / 1e9 for each in savings], label, "costs"),
    }.items():
        (OUT / f"{name}.svg").write_text(with_legend(chart, board.attempts) + "\n")


def attempts_on(tile: str, board: Leaderboard) -> Image:
    """A patch of val: the image, its truth, and the mask of every attempt with its IoU there."""
    cells: list[Cell] = []
    for attempt in board.ranked:
        path = Path("predictions") / attempt.name / "val" / "panels" / f"{tile}.png"
        image, truth, judged = split_panel(read_image(path))
        cells = cells or [(image, [(f"{tile}, a tile of val", INK)]), (truth, [("truth", INK)])]
        note = attempt.label.removeprefix(attempt.name).strip(" ()")
        iou = f"IoU {attempt.of_split('val').iou[tile]:.2f}" + (f", {note}" if note else "")
        cells.append((judged, [(attempt.name, INK), (iou, colour(attempt.index))]))
    return grid(cells, columns=4, side=224, legend=True)


def map_of(tile: str, attempt: str) -> Image:
    """A whole tile with the footprints that `roofseg predict` finds, and its centre at full size."""
    source = Path("data/sample/imgs") / f"{tile}.tif"
    with tempfile.TemporaryDirectory() as folder:
        command = ["predict", "--model", f"models/{attempt}", str(source), "--out", folder]
        subprocess.run([sys.executable, "-m", "roofseg", *command, "--vector", "gpkg"], check=True)
        wkb = pyogrio.raw.read(Path(folder) / f"{tile}.gpkg")[2]
    with rasterio.open(source) as raster:
        image, to_pixels = np.moveaxis(raster.read(), 0, -1).copy(), ~raster.transform
        metres = raster.width * raster.res[0]
    rings = [
        np.array([to_pixels @ point for point in ring.coords])
        for polygon in shapely.from_wkb(wkb)
        for ring in (polygon.exterior, *polygon.interiors)
    ]
    side = 466
    scale = side / image.shape[0]
    whole = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    start = (image.shape[0] - side) // 2
    centre = image[start : start + side, start : start + side].copy()
    for ring in rings:
        outline(whole, ring * scale, 1)
        outline(centre, ring - start, 2)
    corner, end = round(start * scale), round((start + side) * scale)
    cv2.rectangle(whole, (corner, corner), (end, end), (255, 255, 255), 2)
    return grid(
        [
            (whole, [(f"{tile}, {metres:.0f} m wide: {len(wkb)} footprints", INK)]),
            (centre, [("its centre", INK)]),
        ],
        columns=2,
        side=side,
    )


def outline(image: Image, ring: np.ndarray, thickness: int) -> None:
    """Draw a ring of (x, y) in pixels onto an image."""
    points = np.rint(ring * 16).astype(np.int32)  # sixteenths of a pixel
    cv2.polylines(image, [points], True, FOOTPRINT, thickness, cv2.LINE_AA, shift=4)


def overview() -> Image:
    """Every patch of train and val with its true footprints outlined."""
    cells: list[Cell] = []
    for split in ("train", "val"):
        patches = read_patches(Path("patches") / split)
        for patch in patches:
            drawn = overlay(patch.image, patch.mask, np.zeros_like(patch.mask))
            cells.append((drawn, [(split, INK)]))
    return grid(cells, columns=8, side=108)


def budget(names: Sequence[str]) -> Image:
    """The table of the data budget in docs/austin512.md, where each row has two runs."""
    row = r"\| `(\w+)` \| (\d+) \| ([\d.]+) \[.*?\] \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \|"
    rows = re.findall(row, (OUT.parent / "austin512.md").read_text())
    table = pd.DataFrame(rows, columns=["label", "tiles", "val_iou", "min", "max"])
    table = table.astype({"tiles": int, "val_iou": float, "min": float, "max": float})
    runs = pd.concat([table.assign(val_iou=table["min"]), table.assign(val_iou=table["max"])])
    order = {name: index for index, name in enumerate(names)}
    return figures.budget(runs, table, order, "36 real patches of 512 px (austin512)")


def grid(cells: Sequence[Cell], *, columns: int, side: int, legend: bool = False) -> Image:
    """Pictures in rows, each scaled to a square of ``side`` pixels, with labels below."""
    text = 15
    lines = max(len(labels) for _, labels in cells)
    row = side + lines * (text + 5) + GAP
    width = GAP + columns * (side + GAP)
    height = GAP + row * -(-(len(cells) + legend) // columns)
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=PAPER)
    for index, (picture, labels) in enumerate(cells):
        left, top = GAP + index % columns * (side + GAP), GAP + index // columns * row
        method = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_CUBIC
        scaled = cv2.resize(picture, (side, side), interpolation=method)
        figure.figimage(scaled, left, height - top - side)
        for line, (words, ink) in enumerate(labels, 1):
            below = top + side + line * (text + 5) - 3
            figure.text(left / width, 1 - below / height, words, color=ink, fontsize=text)
    if legend:
        left, top = GAP + len(cells) % columns * (side + GAP), GAP + len(cells) // columns * row
        named = {"found": HIT, "missed": MISSED, "false alarm": FALSE_ALARM}
        for line, (words, rgb) in enumerate(named.items()):
            at = (left + GAP) / width, 1 - (top + side / 3 + line * 32) / height
            figure.text(*at, "\N{BLACK SQUARE}", color=np.array(rgb) / 255, fontsize=24)
            figure.text(at[0] + 30 / width, at[1], words, color=INK, fontsize=18)
    return rendered(figure)


def with_legend(chart: str, attempts: Sequence[Attempt]) -> str:
    """A chart of the report as a file of its own: its colours, white paper, and a legend on top."""
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)[0])
    values = {"rule": RULE, "paper": PAPER} | {f"series-{n}": ink for n, ink in enumerate(COLOURS)}
    chart = re.sub(r"var\(--([\w-]+)\)", lambda found: values[found[1]], chart)
    chart = chart.replace("currentColor", INK)
    head = 18 * -(-len(attempts) // 2) + 8
    legend = "".join(
        f'<rect x="{12 + index % 2 * width / 2:g}" y="{10 + index // 2 * 18}" width="10" height="10" '
        f'fill="{colour(attempt.index)}"/><text x="{27 + index % 2 * width / 2:g}" '
        f'y="{19 + index // 2 * 18}">{attempt.label}</text>\n'
        for index, attempt in enumerate(attempts)
    )
    box = f'viewBox="0 {-head:g} {width:g} {height + head:g}"'
    chart = re.sub(r"^<svg [^>]*>", "", chart).removesuffix("</svg>")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} width="600">\n'
        f'<rect y="{-head}" width="100%" height="100%" fill="{PAPER}"/>\n'
        f'<g transform="translate(0 {-head})" fill="{INK}" font-family="DejaVu Sans, sans-serif" '
        f'font-size="10">\n{legend}</g>\n{chart}</svg>'
    )


def save(name: str, picture: Image) -> None:
    """Write a PNG of at most `LIMIT` bytes, with as many colours as that allows."""
    for colours in (256, 192, 128, 96, 64, 32):
        data = io.BytesIO()
        palette = Pillow.fromarray(picture).quantize(colours, dither=Pillow.Dither.NONE)
        palette.save(data, "PNG", optimize=True)
        if data.tell() <= LIMIT:
            (OUT / name).write_bytes(data.getvalue())
            print(f"{OUT / name}: {data.tell() // 1000} KB, {colours} colours")
            return
    raise ValueError(f"{name}: over {LIMIT} bytes even with {colours} colours")


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    main()
