"""Draw the pictures of README.md and docs/ from what `make repro` left in this project.

`make pictures` runs this in the root of the project. It draws the results of the sample alone,
whose tiles are generated: pictures of other tiles may not be passed on. No picture shows test.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio.raw
import rasterio
import shapely
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image as Pillow
from scipy.spatial import KDTree

from roofseg import drawing
from roofseg.core.images import Image, read_image
from roofseg.patches import read_patches
from roofseg.recipe.parsing import read_params
from roofseg.report import charts
from roofseg.report.attempts import Attempt
from roofseg.report.leaderboard import Leaderboard, cost_values, read_leaderboard
from roofseg.studies.report import figures

OUT = Path(__file__).parent
LIMIT = 300_000  # bytes of a picture
GAP, TEXT, LINE = 12, 15, 20  # between pictures, of letters, of a line of text; in pixels
INK, PAPER = "#1d1d1b", "#ffffff"
FOOTPRINT = "#ffeb00"
JUDGED = {"found": drawing.HIT, "missed": drawing.MISSED, "false alarm": drawing.FALSE_ALARM}

Cell = tuple[Image, Sequence[tuple[str, str]]]  # a picture, and lines of text with their colours


def main() -> None:
    params = read_params(Path("params.yaml"))
    if params.dataset != "sample":
        sys.exit(f"params.yaml: the dataset is {params.dataset}, but only sample may be shown")
    board = read_leaderboard(
        list(params.attempts),
        dataset=params.dataset,
        patch_size=params.patch_size,
        results=Path("metrics/attempts"),
        baselines=Path("metrics/baselines.json"),
        seed_spread={},  # no picture shows it
    )
    val = board.leader.of_split("val")
    tile = str(val.buildings.idxmax())  # chosen by the truth, so that no attempt is favoured
    save("attempts.png", attempts_on(tile, board))
    save("map.png", map_of(tile, board.leader.name))
    save("overview.png", overview())
    overlays = Path("predictions", board.leader.name, "val", "overlays")
    drawn = [
        (read_image(overlays / f"{name}.png"), [(f"{name}: IoU {iou:.2f}", INK)])
        for name, iou in val.iou.items()
    ]
    save("overlays.png", grid(drawn, columns=3, side=260))
    save("budget.png", budget(list(params.attempts)))
    unit = "billions of multiply-adds per megapixel"
    spent = [
        (cost_values(attempt)["multiply_adds_per_megapixel"] or 0) / 1e9
        for attempt in board.attempts
    ]
    for name, chart in {
        "convergence": charts.convergence(board.attempts),
        "reliability": charts.reliability(board.attempts),
        "costs": charts.cost(board.attempts, spent, unit, "costs"),
    }.items():
        (OUT / f"{name}.svg").write_text(with_legend(chart, board.attempts))


def attempts_on(tile: str, board: Leaderboard) -> Image:
    """A patch of val: the image, its truth, and the mask of every attempt with its IoU there."""
    cells: list[Cell] = []
    for attempt in board.ranked:
        panel = Path("predictions", attempt.name, "val", "panels", f"{tile}.png")
        image, truth, judged = drawing.split_panel(read_image(panel))
        cells = cells or [(image, [(f"{tile}, in val", INK)]), (truth, [("truth", INK)])]
        note = attempt.label.removeprefix(attempt.name).strip(" ()")  # "no SAM weights"
        iou = ", ".join(filter(None, [f"IoU {attempt.of_split('val').iou[tile]:.2f}", note]))
        cells.append((judged, [(attempt.name, INK), (iou, drawing.colour(attempt.index))]))
    return grid(cells, columns=4, side=224, legend=True)


def map_of(tile: str, attempt: str) -> Image:
    """A whole tile with the footprints that `roofseg predict` finds; its centre at full size."""
    source = Path("data/sample/imgs", f"{tile}.tif")
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--model", f"models/{attempt}", str(source), "--out", folder]
        shaped = ["--vector", "gpkg", "--min-area", "10", "--regularise"]  # as in README.md
        subprocess.run(
            [sys.executable, "-m", "roofseg", "predict", *arguments, *shaped], check=True
        )
        polygons = shapely.from_wkb(pyogrio.raw.read(Path(folder, f"{tile}.gpkg"))[2])
    with rasterio.open(source) as raster:
        image, to_pixels = np.moveaxis(raster.read(), 0, -1).copy(), ~raster.transform
        metres = raster.width * raster.res[0]
    side = 466
    scale, start = side / len(image), (len(image) - side) // 2
    whole = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    centre = image[start : start + side, start : start + side].copy()
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            points = np.array([to_pixels @ point for point in ring.coords])
            outline(whole, points * scale, 1)
            outline(centre, points - start, 2)
    corner, end = round(start * scale), round((start + side) * scale)
    cv2.rectangle(whole, (corner, corner), (end, end), (255, 255, 255), 2)
    title = f"{tile}, {metres:.0f} m wide: {len(polygons)} footprints"
    cells: list[Cell] = [(whole, [(title, INK)]), (centre, [("the square, enlarged", INK)])]
    return grid(cells, columns=2, side=side)


def outline(image: Image, ring: npt.NDArray[np.float64], thickness: int) -> None:
    """Draw a ring of points (x, y), in pixels, onto an image."""
    points = np.rint(ring * 16).astype(np.int32)  # sixteenths of a pixel
    cv2.polylines(image, [points], True, rgb(FOOTPRINT), thickness, cv2.LINE_AA, shift=4)


def overview() -> Image:
    """Every patch of train and val with its true footprints outlined."""
    cells: list[Cell] = []
    for split in ("train", "val"):
        for patch in read_patches(Path("patches", split)):
            drawn = drawing.overlay(patch.image, patch.mask, np.zeros_like(patch.mask))
            cells.append((drawn, [(split, INK)]))
    return grid(cells, columns=8, side=108)


def budget(names: Sequence[str]) -> Image:
    """The table of the data budget in docs/austin512.md, each row of which has two runs."""
    row = r"\| `(\w+)` \| (\d+) \| ([\d.]+) \[.*?\] \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \|"
    rows = re.findall(row, (OUT.parent / "austin512.md").read_text())
    table = pd.DataFrame(rows, columns=["label", "tiles", "val_iou", "min", "max"])
    table = table.astype({"tiles": int, "val_iou": float, "min": float, "max": float})
    runs = pd.concat([table.assign(val_iou=table["min"]), table.assign(val_iou=table["max"])])
    order = {name: index for index, name in enumerate(names)}
    return figures.budget(runs, table, order, "36 real patches of 512 px (austin512)")


def grid(cells: Sequence[Cell], *, columns: int, side: int, legend: bool = False) -> Image:
    """Pictures in rows, each scaled to a square of ``side`` pixels, with text below."""
    pitch, row = side + GAP, side + max(len(lines) for _, lines in cells) * LINE + GAP
    width, height = GAP + columns * pitch, GAP + row * -(-(len(cells) + legend) // columns)
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=PAPER)

    def write(x: float, y: float, text: str, ink: str, size: float = TEXT) -> None:
        figure.text(x / width, 1 - y / height, text, color=ink, fontsize=size)

    def place(index: int) -> tuple[int, int]:
        return GAP + index % columns * pitch, GAP + index // columns * row

    for index, (picture, lines) in enumerate(cells):
        left, top = place(index)
        method = cv2.INTER_AREA if len(picture) > side else cv2.INTER_CUBIC
        scaled = cv2.resize(picture, (side, side), interpolation=method)
        figure.figimage(scaled, left, height - top - side)
        for line, (text, ink) in enumerate(lines, 1):
            write(left, top + side + line * LINE - 3, text, ink)
    left, top = place(len(cells))
    for line, (text, mark) in enumerate(JUDGED.items() if legend else ()):
        y = top + side / 3 + line * 32
        write(left + GAP, y, "\N{BLACK SQUARE}", "#{:02x}{:02x}{:02x}".format(*mark), 24)
        write(left + GAP + 30, y, text, INK, 18)
    return drawing.rendered(figure)


def with_legend(chart: str, attempts: Sequence[Attempt]) -> str:
    """A chart of the report as a file of its own: its colours, white paper, and a legend on top."""
    series = {f"series-{index}": ink for index, ink in enumerate(drawing.COLOURS)}
    colours = {"rule": "#dcdcd6", "paper": PAPER} | series
    chart = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], chart)
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)[0])
    body = re.sub(r"^<svg [^>]*>", "", chart.replace("currentColor", INK))
    head = 18 * -(-len(attempts) // 2) + 8
    legend = ""
    for index, attempt in enumerate(attempts):
        x, y = 12 + index % 2 * width / 2, 10 + index // 2 * 18 - head
        ink = drawing.colour(attempt.index)
        legend += f'<rect x="{x:g}" y="{y}" width="10" height="10" fill="{ink}"/>\n'
        legend += f'<text x="{x + 15:g}" y="{y + 9}">{attempt.label}</text>\n'
    box = f"-6 {-head} {width + 12:g} {height + head + 6:g}"
    font = f'fill="{INK}" font-family="DejaVu Sans, Verdana, sans-serif" font-size="10"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="600">\n'
        f'<rect x="-6" y="{-head}" width="100%" height="100%" fill="{PAPER}"/>\n'
        f"<g {font}>\n{legend}</g>\n{body}\n"
    )


def rgb(ink: str) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in to_rgb(ink))


def save(name: str, picture: Image) -> None:
    """Write a PNG of at most `LIMIT` bytes, with as many colours as that allows."""
    # A palette chosen by frequency alone would lose the colours of marks and text.
    marks = [*map(rgb, [INK, PAPER, FOOTPRINT, *drawing.COLOURS]), *JUDGED.values()]
    for count in (240, 192, 128, 96, 64, 32):
        frequent = Pillow.fromarray(picture).quantize(count, kmeans=3).getpalette()
        palette = np.array([*marks, *np.reshape(frequent or [], (-1, 3))[:count]], np.uint8)
        indexed = Pillow.fromarray(KDTree(palette).query(picture)[1].astype(np.uint8))
        indexed.putpalette(palette.tobytes())
        data = io.BytesIO()
        indexed.save(data, "PNG", optimize=True)
        if data.tell() <= LIMIT:
            break
    (OUT / name).write_bytes(data.getvalue())
    print(f"{OUT / name}: {data.tell() // 1000} KB, {count} colours")


if __name__ == "__main__":
    main()
