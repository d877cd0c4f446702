"""Find the image and the mask of every tile of a dataset."""

from __future__ import annotations

import shlex
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.recipe.split import SPLITS, read_split
from roofseg.tiles.rasters import SIDECARS, TilePair


def find_tiles(folder: Path) -> list[TilePair]:
    """Find image and mask of every tile in the split of the dataset in ``folder``.

    The tiles are in the order train, val, test, and by name within a split. Tiles that split.csv
    does not list are left out (see `unlisted_tiles`). No raster is opened.

    Raises:
        UserError: split.csv is missing or invalid (see `read_split`), a tile has no image or no
            mask, or two files have the same name but for their suffix
    """
    splits = read_split(folder)
    images, masks = _rasters(folder / "imgs"), _rasters(folder / "msks")
    for kind, files in (("imgs", images), ("msks", masks)):
        missing = sorted(splits.keys() - files.keys())
        if missing:
            raise UserError(
                f"{folder / kind}: no file for {', '.join(missing)}, which {folder / 'split.csv'} "
                "lists (by file name without suffix). Add the file, or remove the line."
            )
    pairs = [TilePair(name, split, images[name], masks[name]) for name, split in splits.items()]
    return sorted(pairs, key=lambda pair: (SPLITS.index(pair.split), pair.name))


def unlisted_tiles(folder: Path) -> list[str]:
    """Names of the tiles in ``imgs/`` or ``msks/`` that split.csv does not list, sorted."""
    found = _rasters(folder / "imgs").keys() | _rasters(folder / "msks").keys()
    return sorted(found - read_split(folder).keys())


def _rasters(folder: Path) -> dict[str, Path]:
    """Map file name without suffix to path; leave out hidden files, sidecars and folders."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected one raster for each tile. Put them there, or get "
            f"them with `dvc pull {shlex.quote(str(folder))}` where DVC tracks them."
        )
    rasters: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() in SIDECARS or not path.is_file():
            continue
        if path.stem in rasters:
            raise UserError(
                f"{path}: {rasters[path.stem].name} in the same folder is called {path.stem} too; "
                "expected one file for each tile. Remove one of them."
            )
        rasters[path.stem] = path
    return rasters
