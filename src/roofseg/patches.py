"""Read patches from disk: one square crop per tile, in a folder per split.

A split's folder holds images/TILE.jpg (RGB), masks/TILE.png (0 background, 255 building, 127 where
nobody has labelled) and crops.csv, which says where in its tile each patch lies.
`roofseg.cutting.cut` writes them. Only `roofseg.evaluation.sealed_split` reads the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from roofseg.core.errors import UserError
from roofseg.core.files import read_rows, write_rows
from roofseg.core.images import Image, read_image, read_mask

if TYPE_CHECKING:  # make_patches imports this module and need not wait half a second for pandas
    import pandas as pd

CROPS_COLUMNS = (
    *("tile", "row", "col", "method", "building_fraction", "gsd", "crs", "transform"),
    "image_sha256",
)
SEEN_COLUMNS = ("dataset", "split", "tile", "image_sha256", "patch_size", "crs", "transform")
RETRAIN = "Without it nobody can tell which tiles the model has seen: train the model again."


@dataclass(frozen=True, eq=False)
class Patch:
    """A labelled patch: the tile it was cut from, and its pixels.

    ``image`` is (P, P, 3) uint8 RGB; ``mask`` is (P, P) uint8, 0 background, 1 building, and
    `UNKNOWN`; ``gsd`` is the ground sampling distance in metres per pixel, NaN where unknown.
    """

    tile: str
    image: Image
    mask: Image
    gsd: float = float("nan")


def read_patches(folder: Path) -> list[Patch]:
    """Read the patches in a split's folder, sorted by tile.

    Raises UserError if a file that crops.csv lists is missing or broken, or if the images and masks
    are not all squares of the same size.
    """
    patches: list[Patch] = []
    crops = read_crops(folder)
    for tile, gsd in sorted(zip(crops.tile, crops.gsd, strict=True)):
        image_path = folder / "images" / f"{tile}.jpg"
        mask_path = folder / "masks" / f"{tile}.png"
        for path in (image_path, mask_path):
            if not path.is_file():
                raise UserError(
                    f"{path}: no such file, but {folder / 'crops.csv'} lists it. {_remake(folder)}"
                )
        patch = Patch(tile, read_image(image_path), read_mask(mask_path), gsd)
        size = (patches or [patch])[0].mask.shape[0]
        for path, shape in ((image_path, patch.image.shape), (mask_path, patch.mask.shape)):
            if shape[:2] != (size, size):
                raise UserError(
                    f"{path}: {shape[1]} x {shape[0]} px; expected {size} x {size}, as in the rest "
                    f"of the split. {_remake(folder)}"
                )
        patches.append(patch)
    return patches


def read_crops(folder: Path) -> pd.DataFrame:
    """Read crops.csv in a split's folder: one row per patch.

    Columns: tile; row and col of its top-left pixel in the tile; method (centre, slid, nudged);
    building_fraction of the labelled pixels, in [0, 1]; gsd in metres per pixel (NaN where
    unknown); crs, such as EPSG:32614; transform, the six affine coefficients "a b c d e f" that map
    (column, row) in the patch to coordinates in crs (crs and transform are empty where unknown);
    image_sha256, the SHA-256 of the tile's image. Raises UserError if the file is missing or has
    other columns.
    """
    import pandas as pd

    path = folder / "crops.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file. {_remake(folder)}")
    text = {"tile": str, "method": str, "crs": str, "transform": str, "image_sha256": str}
    try:
        # A tile may be called NA or 007; only a missing gsd is a missing value.
        crops = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"gsd": [""]})
    except ValueError as error:
        raise UserError(f"{path}: not a table ({error}). {_remake(folder)}") from None
    if tuple(crops.columns) != CROPS_COLUMNS:
        raise UserError(
            f"{path}: found the columns {','.join(crops.columns)}; expected "
            f"{','.join(CROPS_COLUMNS)}. {_remake(folder)}"
        )
    return crops.astype({"gsd": float})


def seen_tiles(patches: Path, *, dataset: str, patch_size: int) -> list[dict[str, str]]:
    """The tiles of train and val, which training sees: a value for each of `SEEN_COLUMNS`.

    A model's folder keeps these rows as tiles.csv, so that a dataset can be compared with them.
    ``patches`` is the folder of the splits' folders, and ``patch_size`` is in pixels.
    """
    rows = []
    for split in ("train", "val"):
        known = {"dataset": dataset, "split": split, "patch_size": str(patch_size)}
        for crop in read_crops(patches / split).sort_values("tile").to_dict("records"):
            rows.append({name: known.get(name) or crop[name] for name in SEEN_COLUMNS})
    return rows


def write_seen_tiles(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write the tiles that a model has seen as the table that lies in its folder."""
    write_rows(path, SEEN_COLUMNS, (row.values() for row in rows))


def read_seen_tiles(path: Path) -> list[dict[str, str]]:
    """Read a model's tiles.csv; UserError if it is missing, is another table or lists no tile."""
    rows = read_rows(path, SEEN_COLUMNS, RETRAIN)
    if not rows:
        raise UserError(f"{path}: lists no tile. {RETRAIN}")
    return rows


def _remake(folder: Path) -> str:
    return f"Get the patches with `dvc pull {folder}`, or make them with `dvc repro make_patches`."
