"""A profile for a new dataset: a complete one with what the dataset decides set anew."""

from __future__ import annotations

from pathlib import Path

from roofseg.intake.inspect import Report
from roofseg.recipe.params import PATCH_MULTIPLE, read_params
from stages.round_trip import round_trip


def derive_profile(base: Path, out: Path, dataset: str, patch_size: int) -> None:
    """Write the profile ``base`` for ``dataset`` at ``out``, with its comments; nothing is final.

    ``patch_size`` is in pixels. Raises UserError if what comes out is no profile.
    """
    yaml = round_trip()
    document = yaml.load(base.read_text(encoding="utf-8"))
    document["dataset"] = dataset
    if document["patch_size"] != patch_size:
        document["patch_size"] = patch_size
        document.yaml_add_eol_comment(
            "pixels, a multiple of 32; as the smallest tile has them", "patch_size"
        )
    for attempt in document["final"]:
        document["final"][attempt] = None
    document.ca.comment = None  # the lines at the top
    with out.open("w", encoding="utf-8") as file:
        file.write(
            f"# The tiles of {dataset}, under the recipe of {base}, from which `make new-dataset`\n"
            "# made this. What its comments say of the study and of GSD, they say of that one.\n\n"
        )
        yaml.dump(document, file)
    read_params(out)


def fitting_patch(report: Report, most: int) -> int:
    """The largest patch (px) that fits the smallest tile in the split, ``most`` at most."""
    grids = [tile.grid for tile in report.tiles if tile.split and tile.grid]
    side = min(min(grid.height, grid.width) for grid in grids)
    return min(most, side // PATCH_MULTIPLE * PATCH_MULTIPLE)
