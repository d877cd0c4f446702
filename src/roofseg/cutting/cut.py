"""Cut a square patch from every tile, write the patches by split, and draw them on one sheet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from rasterio.transform import Affine

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write, sha256_file, write_rows
from roofseg.core.images import UNKNOWN, Image, file_values, portable_opencv, write_jpeg, write_png
from roofseg.core.messages import gathered
from roofseg.core.progress import Progress, silent
from roofseg.cutting.find import find_tiles
from roofseg.cutting.leakage import Fingerprint, near_duplicates, overlaps, shared_ground
from roofseg.cutting.window import MIN_LABELLED, Crop, choose_window
from roofseg.drawing import CELL, SheetGroup, contact_sheet, hatched
from roofseg.patches import CROPS_COLUMNS
from roofseg.recipe.split import SPLITS, read_nudges
from roofseg.tiles.grid import Grid
from roofseg.tiles.manifest import TileRecord, write_manifest
from roofseg.tiles.tile import TilePair, check_tile, read_tile_mask, read_tile_window

JPEG_QUALITY = 90
PAIRS_NAMED = 20  # the most overlapping pairs that an error lists; there may be very many


@portable_opencv()
def make_patches(
    dataset: Path,
    out: Path,
    *,
    patch_size: int,
    min_building_fraction: float,
    warn: Callable[[str], None],
    progress: Progress = silent,
) -> dict[str, int]:
    """Cut one patch from every tile in the split of ``dataset`` into ``out``.

    Writes ``out``/{train,val,test}, ``out``/tiles.csv (see `roofseg.tiles.manifest`) and
    ``out``/overview.png; on an error, it writes none of them. `cutting.window.choose_window`
    decides where a patch is cut. The same tiles give the same bytes on every CPU of one
    architecture.

    Args:
        dataset: folder with imgs/, msks/, split.csv and nudges.csv
        out: folder for the patches; existing files and folders of these names are replaced
        patch_size: side of a patch in pixels
        min_building_fraction: share of building pixels, in [0, 1], that a patch should have, of
            those that are labelled
        warn: called with one line that names all tiles missing from split.csv, one line for each
            tile without enough building or labelled pixels, one for each other order of bands than
            red, green, blue, and one for each pair of patches in two splits that look alike
        progress: shows how many patches are cut

    Returns:
        The number of patches of each split.

    Raises:
        UserError: a nudge leaves its tile, no pixel of a patch is labelled, patches of two splits
            overlap (see `cutting.leakage`), or the dataset is broken (see `roofseg.tiles.tile`)
    """
    tiles, unlisted = find_tiles(dataset)
    nudges = read_nudges(dataset)
    unknown = sorted(nudges.keys() - {tile.name for tile in tiles} - set(unlisted))
    if unknown:
        raise UserError(
            f"{dataset / 'nudges.csv'}: no tile in {dataset / 'imgs'} is named "
            f"{', '.join(unknown)}. Correct the name (the file name without its suffix) or remove "
            "the line."
        )
    if unlisted:
        warn(f"{dataset / 'split.csv'} lists no split for {', '.join(unlisted)}: left out")

    with ExitStack() as stack:
        overview = stack.enter_context(atomic_write(out / "overview.png"))
        manifest = stack.enter_context(atomic_write(out / "tiles.csv"))
        folders = {split: stack.enter_context(atomic_write(out / split)) for split in SPLITS}
        rows: dict[str, list[tuple[object, ...]]] = {split: [] for split in SPLITS}
        cells: dict[str, list[tuple[Image, str]]] = {split: [] for split in SPLITS}
        fingerprints, grids, notes, hashes = [], [], [], []
        some_unknown = False
        for tile in progress(tiles, "Cutting patches"):
            grid, note = check_tile(tile, patch_size)
            notes.append((tile.name, note))
            nudge = nudges.get(tile.name)
            if nudge:
                _check_nudge(nudge, tile, grid, patch_size, dataset / "nudges.csv")
            tile_mask = read_tile_mask(tile.mask, tile.unknown)
            crop = choose_window(tile_mask, patch_size, min_building_fraction, nudge)
            if crop.labelled == 0:
                raise UserError(
                    f"{tile.mask}: no pixel of the patch at row {crop.row}, col {crop.col} is "
                    "labelled, so it could neither train nor be scored. "
                    f"{'Correct nudges.csv' if nudge else 'Take the tile out of split.csv'}."
                )
            if crop.method != "nudged" and crop.labelled < MIN_LABELLED:
                warn(
                    f"tile {tile.name} ({tile.split}): no window of {patch_size} px is labelled in "
                    f"{MIN_LABELLED:.0%} of its pixels; cut the window with the most, "
                    f"{crop.labelled:.2%}, at row {crop.row}, col {crop.col}"
                )
            elif crop.method != "nudged" and crop.building_fraction < min_building_fraction:
                warn(
                    f"tile {tile.name} ({tile.split}): no window of {patch_size} px has "
                    f"{min_building_fraction:.2%} building; cut the window with the most, "
                    f"{crop.building_fraction:.2%}, at row {crop.row}, col {crop.col}"
                )
            mask = tile_mask[crop.row : crop.row + patch_size, crop.col : crop.col + patch_size]
            image = read_tile_window(tile.image, crop.row, crop.col, patch_size)

            folder = folders[tile.split]
            write_jpeg(folder / "images" / f"{tile.name}.jpg", image, JPEG_QUALITY)
            write_png(folder / "masks" / f"{tile.name}.png", file_values(mask))
            place = replace(
                grid,
                height=patch_size,
                width=patch_size,
                transform=grid.transform
                and grid.transform @ Affine.translation(crop.col, crop.row),
            )
            image_sha256 = sha256_file(tile.image)
            rows[tile.split].append(_crop_row(tile.name, crop, place, image_sha256))
            hashes.append(image_sha256)
            fingerprints.append(Fingerprint.of(tile.name, tile.split, image, place, mask))
            caption = f"{tile.split} · {crop.building_fraction:.1%} · {crop.method}"
            if crop.labelled < 1:
                some_unknown = True
                caption += f" · {crop.labelled:.0%} labelled"
            cells[tile.split].append((_outlined(image, mask), f"{tile.name}\n{caption}"))
            grids.append(grid)
        for line in gathered(notes):
            warn(line)
        if shared := overlaps(fingerprints):
            more = f"; and {len(shared) - PAIRS_NAMED} more" if len(shared) > PAIRS_NAMED else ""
            raise UserError(
                f"{dataset / 'split.csv'}: patches of two splits overlap, so scores would be "
                f"too high: {'; '.join(shared[:PAIRS_NAMED])}{more}. Put the tiles into one "
                "split, remove one, or move a crop with nudges.csv."
            )
        for pair in near_duplicates(fingerprints):
            warn(f"{pair}: the same place in two splits? Look at {out / 'overview.png'}")
        for split in SPLITS:
            write_rows(folders[split] / "crops.csv", CROPS_COLUMNS, rows[split])
        places = [fingerprint.grid for fingerprint in fingerprints]
        write_manifest(manifest, _tile_records(tiles, grids, places, hashes))
        write_png(overview, _overview(dataset.name, patch_size, cells, some_unknown))
    return {split: len(rows[split]) for split in SPLITS}


def _tile_records(
    tiles: list[TilePair], grids: list[Grid], places: list[Grid], hashes: list[str]
) -> Iterator[TileRecord]:
    """Make the rows of tiles.csv; each names the tiles of other splits that share its ground.

    ``places`` are the grids of the patches, and ``hashes`` those of the tiles' images.
    """
    partners: dict[int, list[int]] = defaultdict(list)
    for one, other in shared_ground(grids, [tile.split for tile in tiles]):
        partners[one].append(other)
        partners[other].append(one)
    for index, tile in enumerate(tiles):
        yield TileRecord(
            tile.name,
            tile.split,
            tile.image.name,
            hashes[index],
            tile.mask.name,
            sha256_file(tile.mask),
            " ".join(tiles[partner].name for partner in sorted(partners[index])),
            *_place(places[index]),
            *(str(grids[index].height), str(grids[index].width)),
        )


def _check_nudge(
    nudge: tuple[int, int], tile: TilePair, grid: Grid, patch_size: int, path: Path
) -> None:
    last_row, last_col = grid.height - patch_size, grid.width - patch_size
    if nudge[0] > last_row or nudge[1] > last_col:
        raise UserError(
            f"{path}: tile {tile.name} is nudged to row {nudge[0]}, col {nudge[1]}, where a patch "
            f"of {patch_size} px leaves the tile ({grid.width} x {grid.height} px). The row can be "
            f"0 to {last_row}, the column 0 to {last_col}."
        )


def _crop_row(tile: str, crop: Crop, grid: Grid, image_sha256: str) -> tuple[object, ...]:
    """The values of `CROPS_COLUMNS`; ``grid`` is that of the crop."""
    return (
        tile,
        crop.row,
        crop.col,
        crop.method,
        round(crop.building_fraction, 6),
        "" if grid.gsd is None else grid.gsd,
        *_place(grid),
        image_sha256,
    )


def _place(grid: Grid) -> tuple[str, str]:
    """The CRS and the six coefficients of the transform, as text; empty where unknown."""
    return (
        "" if grid.crs is None else grid.crs.to_string(),
        " ".join(repr(float(number)) for number in grid.transform[:6]) if grid.transform else "",
    )


# Yellow is rare in aerial imagery. Colour-blind readers, too, can tell the colours of the splits
# apart (Okabe and Ito 2008, "Color Universal Design").
OUTLINE = (255, 235, 0)
SPLIT_COLOURS = {"train": (0, 114, 178), "val": (0, 158, 115), "test": (213, 94, 0)}
MIN_COLUMNS = 6


def _outlined(image: Image, mask: Image) -> Image:
    """Scale a patch to a cell of the overview, outline its footprints, and hatch unknown pixels."""
    size = (CELL, CELL)
    thumbnail = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    covered, unknown = (
        cv2.resize((mask == value) * np.uint8(255), size, interpolation=cv2.INTER_AREA) >= 128
        for value in (1, UNKNOWN)
    )
    thumbnail = hatched(thumbnail.astype(np.uint8, copy=False), unknown)
    outlines, _ = cv2.findContours(covered.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(thumbnail, outlines, -1, OUTLINE, 1)
    return thumbnail


def _overview(
    dataset: str,
    patch_size: int,
    cells: dict[str, list[tuple[Image, str]]],
    some_unknown: bool,
) -> Image:
    """Draw every patch by split, for a check by eye: (H, W, 3) uint8 RGB."""
    count = sum(map(len, cells.values()))
    groups = [
        SheetGroup(cells[split], f"{split} ({len(cells[split])})", SPLIT_COLOURS[split])
        for split in SPLITS
    ]
    title = f"{dataset}: {count} patches of {patch_size} x {patch_size} px, footprints outlined"
    if some_unknown:
        title += ", unlabelled pixels hatched"
    return contact_sheet(title, groups, MIN_COLUMNS)
