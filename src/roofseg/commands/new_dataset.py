"""Make a dataset from your imagery and its masks or footprints.

Copies tiles into data/NAME, rasterizes footprints, checks every pixel, divides the tiles into
train, val and test, adds them to DVC, and derives profiles/NAME.yaml from another profile. After an
error, neither the dataset nor the profile exists. For example:

  roofseg new-dataset oslo --imgs ~/oslo/ortho --msks ~/oslo/buildings.gpkg
"""

from __future__ import annotations

import argparse
import subprocess
from contextlib import suppress
from pathlib import Path

from roofseg.commands.arguments import local_path, number
from roofseg.commands.check_data import add_max_expansion
from roofseg.commands.edit_params import derive_profile
from roofseg.commands.project import DATA, PROFILES, dvc_command, find_profile
from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write, remove_scratch
from roofseg.core.progress import track
from roofseg.core.terminal import warn
from roofseg.intake.bring_in import bring_in
from roofseg.intake.division import Division
from roofseg.intake.inspect import Report, check_name, table
from roofseg.recipe.params import PATCH_MULTIPLE
from roofseg.recipe.parsing import read_params
from roofseg.tiles.unknown import parse_unknown

MOST = 0.5  # share of the pixels below which it is said how many are used


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="name of the new folder in data/ and of the new profile"
    )
    parser.add_argument(
        "--base",
        default="inria",
        metavar="PROFILE",
        help="the profile whose recipe to take (default: %(default)s)",
    )
    tiles = parser.add_argument_group("the tiles")
    tiles.add_argument(
        "--imgs",
        type=local_path,
        required=True,
        metavar="PATH",
        help="the imagery: a folder of rasters (cut one large raster into tiles first), or the "
        "folder of one zoom of web tiles, such as tiles/19",
    )
    tiles.add_argument(
        "--msks",
        type=local_path,
        required=True,
        metavar="PATH",
        help="the masks: a folder of rasters, one raster, or a file of vector footprints (or a "
        "folder with one for each image)",
    )
    tiles.add_argument("--layer", help="layer of the footprints, if their file has several")
    tiles.add_argument(
        "--unknown",
        type=unknown_value,
        metavar="VALUE",
        help="the value in the masks of pixels that nobody has labelled, such as 127",
    )
    tiles.add_argument(
        "--areas",
        type=local_path,
        metavar="FILE",
        help="a file of polygons: outside them nobody has labelled anything (default: all of the "
        "tiles is labelled, except pixels without data)",
    )
    tiles.add_argument("--areas-layer", help="layer of the areas, if their file has several")
    tiles.add_argument(
        "--allow-ballpark",
        action="store_true",
        help="accept footprints that may lie more than a pixel off, because PROJ lacks a grid",
    )
    tiles.add_argument(
        "--gsd",
        type=number(1e-6),
        metavar="M",
        help="metres per pixel, if the imagery is not georeferenced",
    )
    tiles.add_argument(
        "--merge",
        type=int,
        metavar="N",
        help="merge N x N neighbouring rasters into one tile (default: as many as a patch needs, "
        "where rasters are smaller; 1: none); not with --split",
    )
    add_max_expansion(parser)
    split = parser.add_argument_group("the split")
    split.add_argument(
        "--split",
        type=local_path,
        metavar="CSV",
        help="a split.csv to use (default: divide the tiles at random, by these options)",
    )
    split.add_argument(
        "--seed",
        type=int,
        default=42,
        metavar="N",
        help="seed of the division (default: %(default)s)",
    )
    for name in ("val", "test"):
        split.add_argument(
            f"--{name}",
            type=number(0, 1),
            default=1 / 6,
            metavar="SHARE",
            help=f"share of tiles in {name} (default: 1/6)",
        )
    split.add_argument(
        "--block",
        type=number(1e-6),
        metavar="M",
        help="keep tiles of the same square on the ground in one split; M is its side in metres "
        "(default: keep tiles that touch in one split, or, if all touch, choose M)",
    )


def unknown_value(text: str) -> float:
    """Read an argument that is a value for unknown pixels (see `parse_unknown`)."""
    try:
        return parse_unknown(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a number other than 0, which is background"
        ) from None


def main(args: argparse.Namespace) -> None:
    check_name(args.name)
    data, profile = DATA / args.name, PROFILES / f"{args.name}.yaml"
    base = find_profile(args.base)
    check_destinations(data, profile)
    largest = read_params(base).patch_size
    division = Division(args.seed, args.val, args.test, args.block, args.split)
    with atomic_write(profile) as made, atomic_write(data) as folder:
        report = bring_in(
            args.imgs,
            args.msks,
            folder,
            division=division,
            say=print,
            layer=args.layer,
            unknown=args.unknown,
            areas=args.areas,
            areas_layer=args.areas_layer,
            gsd=args.gsd,
            allow_ballpark=args.allow_ballpark,
            patch_size=largest,
            merge=args.merge,
            max_expansion=args.max_expansion,
            progress=track,
        )
        patch_size = fitting_patch_size(report, largest)
        derive_profile(base, made, args.name, patch_size)
        add_to_dvc(folder)
    print(table(report))
    for warning in report.warnings:
        warn(warning)
    if patch_size < largest:
        print(f"patch_size is {patch_size} px, to fit the smallest tile; {base} has {largest}")
    if (share := patch_share(report, patch_size)) < MOST:
        print(
            f"One patch of {patch_size} px is cut from each tile: {share:.0%} of the pixels. A "
            "larger patch_size, or smaller tiles, uses more of them."
        )
    print(
        f"Made {data} and {profile}. State the licence of the tiles in {data}/LICENSE.md, then:\n"
        f"  git add {data} {profile} && git commit -m 'Tiles of {args.name}'\n"
        f"  roofseg profile {args.name}\n"
        "  git commit -am 'Recipe in force' && dvc repro"
    )


def check_destinations(data: Path, profile: Path) -> None:
    """Raise UserError, before anything is copied, if the dataset or profile cannot be put there."""
    for path in (data, profile):
        remove_scratch(path)  # a killed run leaves gigabytes
        if path.exists() or path.is_symlink():
            raise UserError(f"{path}: already exists. Choose another NAME, or remove it.")
    if not Path(".dvc").is_dir():
        raise UserError(
            f"{Path.cwd()}: no .dvc folder; expected the root of a project under DVC. Run the "
            "command there (in a copy without git and DVC, first `git init && dvc init`)."
        )


def fitting_patch_size(report: Report, largest: int) -> int:
    """The largest patch size (px), at most ``largest``, that fits the smallest tile in a split."""
    grids = [tile.grid for tile in report.tiles if tile.split and tile.grid]
    side = min(min(grid.height, grid.width) for grid in grids)
    return min(largest, side // PATCH_MULTIPLE * PATCH_MULTIPLE)


def patch_share(report: Report, patch_size: int) -> float:
    """The share of all pixels that lie in patches of this size (px), one per tile."""
    grids = [tile.grid for tile in report.tiles if tile.split and tile.grid]
    return len(grids) * patch_size**2 / sum(grid.height * grid.width for grid in grids)


def add_to_dvc(folder: Path) -> None:
    """Run `dvc add` on imgs and msks in the scratch ``folder``.

    The .dvc files stay valid after ``folder`` is renamed: they name no folder above them.
    """
    command = dvc_command("add", folder / "imgs", folder / "msks")
    done = subprocess.run(command, capture_output=True, text=True)
    # With core.autostage, DVC adds the files to git under the name of the scratch folder: undo it.
    unstage = ["git", "rm", "-r", "--cached", "--ignore-unmatch", "--", str(folder)]
    with suppress(FileNotFoundError):  # git is not installed
        subprocess.run(unstage, capture_output=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        why = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
        raise UserError(f"`dvc add` fails: {why}")
