"""Bring tiles of your own in: ``make new-dataset NAME=oslo IMGS=... MSKS=...``.

Makes data/NAME and profiles/NAME.yaml, both or, on an error, neither.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write, remove_scratch
from roofseg.intake.bring_in import Division, bring_in
from roofseg.intake.inspect import MAX_EXPANSION, check_name, system_errors_named, table
from roofseg.recipe.params import read_params
from stages import run
from stages.derived_profile import derive_profile, fitting_patch
from stages.paths import users_path


def main() -> None:
    asked = parse_arguments()
    check_name(asked.name)
    data, profile = Path("data") / asked.name, Path("profiles") / f"{asked.name}.yaml"
    base = Path("profiles") / f"{asked.base}.yaml"
    with system_errors_named():
        check_places(data, profile)
    most = read_params(base).patch_size
    division = Division(asked.seed, asked.val, asked.test, asked.block, asked.split)
    with system_errors_named(), atomic_write(profile) as made, atomic_write(data) as folder:
        options = {"layer": asked.layer, "gsd": asked.gsd, "max_expansion": asked.max_expansion}
        report = bring_in(asked.imgs, asked.msks, folder, division=division, say=print, **options)
        patch_size = fitting_patch(report, most)
        derive_profile(base, made, asked.name, patch_size)
        add_to_dvc(folder)
    print(table(report))
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if patch_size < most:
        print(f"patch_size is {patch_size} px, for the smallest tile; {base} has {most}")
    print(
        f"Made {data} and {profile}. Say whose tiles these are in {data}/LICENSE.md, then:\n"
        f"  git add {data} {profile} && git commit -m 'Tiles of {asked.name}'\n"
        f"  make profile NAME={asked.name}\n"
        "  git commit -am 'Recipe in force' && dvc repro"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stages.new_dataset", description=__doc__)
    add = parser.add_argument
    add("name", help="of the folder in data/ and of the profile")
    add("--imgs", type=users_path, required=True, help="folder of imagery, or one raster")
    add("--msks", type=users_path, required=True, help="folder of masks, or a file of footprints")
    add("--layer", help="of the footprints, where the file has several")
    add("--base", default="inria", help="the profile to start from (default inria)")
    add("--split", type=users_path, help="a split.csv to take; without it, tiles are divided:")
    add("--seed", type=int, default=42, help="of the division (default 42)")
    add("--val", type=float, default=1 / 6, help="share of tiles (default 1/6)")
    add("--test", type=float, default=1 / 6, help="share of tiles (default 1/6)")
    add("--block", type=float, help="side in metres of squares that stay in one split")
    add("--gsd", type=float, help="metres per pixel, where tiles are not georeferenced")
    add("--max-expansion", type=float, default=MAX_EXPANSION, help="see stages.check_data")
    return parser.parse_args()


def check_places(data: Path, profile: Path) -> None:
    """Raise UserError, before anything is copied, if the dataset has no place to go to."""
    for path in (data, profile):
        remove_scratch(path)  # gigabytes, where a run was killed
        if path.exists() or path.is_symlink():
            raise UserError(f"{path}: is there already. Take another NAME, or remove it.")
    if not Path(".dvc").is_dir():
        raise UserError(
            f"{Path.cwd()}: no .dvc folder; expected the root of the project. Run it there (in a "
            "copy without git and DVC, first `git init && dvc init`)."
        )


def add_to_dvc(folder: Path) -> None:
    """Give imgs and msks to DVC, where they lie now: what it writes names no folder above them."""
    command = [sys.executable, "-m", "dvc", "add", folder / "imgs", folder / "msks"]
    done = subprocess.run(command, capture_output=True, text=True)
    # Where core.autostage has DVC tell git of what it adds, it told of files that move on.
    unstage = ["git", "rm", "-r", "--cached", "--ignore-unmatch", "--", folder]
    with suppress(FileNotFoundError):  # no git
        subprocess.run(unstage, capture_output=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        why = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
        raise UserError(f"`dvc add` fails: {why}")


if __name__ == "__main__":
    run(main, reads_tiles=True)
