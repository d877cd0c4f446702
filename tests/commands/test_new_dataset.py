"""`roofseg new-dataset`, with real DVC."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from graph import ROOT
from intake_files import SAMPLE, write_footprints, write_pairs
from processes import started, wait_until
from project import Project
from raster_files import write_huge_raster
from tiny_dataset import make
from unwritable import full_disk, nobody, public_folder
from web_tiles import write_chips

from roofseg.commands.new_dataset import fitting_patch_size, unknown_value
from roofseg.core.errors import UserError
from roofseg.intake.inspect import Report, TileReport
from roofseg.recipe.parsing import parse_params
from roofseg.recipe.split import read_split
from roofseg.tiles.grid import Grid

STOPPED = "error: stopped by SIGTERM; run the same command again to continue\n"

Roofseg = Callable[..., None]


def contents(folder: Path) -> dict[str, bytes]:
    """The contents of all files except those in .git and .dvc."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".git", ".dvc"} & set(path.relative_to(folder).parts)
    }


def bring(roofseg: Roofseg, images: Path, masks: Path, *options: object) -> None:
    roofseg("new-dataset", "oslo", "--imgs", images, "--msks", masks, "--base", "sample", *options)


class TestNewDataset:
    def test_a_missing_split_is_noticed_before_any_tile_is_read(
        self, project: Path, roofseg: Roofseg
    ) -> None:
        nowhere = Path("nowhere")
        with pytest.raises(UserError, match=r"^split\.csv: no such file; expected a CSV with"):
            bring(roofseg, nowhere, nowhere, "--split", "split.csv")
        assert not (project / "data" / "oslo").exists()

    def test_tiles_and_footprints_become_a_dataset_and_a_profile(
        self, project: Path, tmp_path: Path, roofseg: Roofseg, capsys: pytest.CaptureFixture[str]
    ) -> None:
        images, _ = write_pairs(tmp_path)
        bring(roofseg, images, write_footprints(tmp_path / "roofs.gpkg"), "--seed", 3)
        told = capsys.readouterr()
        assert sorted(path.name for path in (project / "data" / "oslo").iterdir()) == [
            ".gitignore",
            "LICENSE.md",
            "imgs",
            "imgs.dvc",
            "intake.json",
            "msks",
            "msks.dvc",
            "nudges.csv",
            "split.csv",
        ]
        assert sorted(path.name for path in (project / "data").iterdir()) == ["oslo"]
        assert "patch_size is 96 px, to fit the smallest tile" in told.out
        assert "roofseg profile oslo" in told.out
        assert told.err == ""
        assert make(Path("data/oslo"), tmp_path / "patches") == []

        # The commands that it prints work, and DVC has the tiles.
        run = {"cwd": project, "check": True, "capture_output": True, "text": True}
        add = re.search(r"git add (.*) &&", told.out)
        assert add
        subprocess.run(["git", "add", *add[1].split()], **run)
        staged = subprocess.run(["git", "diff", "--cached", "--name-only"], **run).stdout.split()
        assert [name for name in staged if not name.startswith(".dvc")] == [
            "data/oslo/.gitignore",
            "data/oslo/LICENSE.md",
            "data/oslo/imgs.dvc",
            "data/oslo/intake.json",
            "data/oslo/msks.dvc",
            "data/oslo/nudges.csv",
            "data/oslo/split.csv",
            "profiles/oslo.yaml",
        ]
        before = contents(project)
        for kind in ("imgs", "msks"):
            for path in Path("data/oslo", kind).iterdir():
                path.unlink()
        subprocess.run([sys.executable, "-m", "dvc", "checkout", "-q"], **run)
        assert contents(project) == before

    @pytest.mark.whole
    def test_the_profile_is_the_base_with_these_tiles(
        self, project: Path, tmp_path: Path, roofseg: Roofseg
    ) -> None:
        final = SAMPLE.replace("unet_scratch:\n  unet", "unet_scratch: 0123456789ab\n  unet")
        (project / "profiles" / "sample.yaml").write_text(final)
        bring(roofseg, *write_pairs(tmp_path))
        made = (project / "profiles" / "oslo.yaml").read_text()
        params, base = parse_params(made), parse_params(SAMPLE)
        sources = base.sources.model_copy(update={"generated": []})  # its tiles are in DVC
        changed = {"dataset": "oslo", "patch_size": 96, "sources": sources}
        assert params == base.model_copy(update=changed)
        assert re.search(
            "^patch_size: 96 +# pixels, .*; fits the smallest tile$", made, re.MULTILINE
        )
        assert made.startswith("# The tiles of oslo with the recipe of profiles/sample.yaml")
        _, _, rest = SAMPLE.partition("min_building_fraction:")
        rest = re.sub(r"generated:(.*)\n  - sample", r"generated: []\1", rest)
        spaced = re.sub(r" +#", " #", f"\nmin_building_fraction:{rest}")
        assert re.sub(r" +#", " #", made).endswith(spaced)  # comments too

    @pytest.mark.parametrize(
        ("sizes", "largest", "patch"),
        [([(500, 130), (200, 400)], 1024, 128), ([(500, 500)], 224, 224), ([(32, 32)], 64, 32)],
    )
    def test_the_patch_fits_the_smallest_tile(
        self, sizes: list[tuple[int, int]], largest: int, patch: int
    ) -> None:
        grids = [Grid(*size, None, None) for size in sizes]
        tiles = [TileReport("a", "val", grid, 0.1, 0.0, ()) for grid in grids]
        unlisted = TileReport("b", "", Grid(40, 40, None, None), 0.1, 0.0, ())
        assert fitting_patch_size(Report((*tiles, unlisted), (), ()), largest) == patch

    @pytest.mark.whole
    def test_a_split_and_a_gsd_that_the_user_gives(
        self, project: Path, tmp_path: Path, roofseg: Roofseg, capsys: pytest.CaptureFixture[str]
    ) -> None:
        images, masks = write_pairs(tmp_path, suffixes=(".jpg", ".png"), georeferenced=False)
        mine = tmp_path / "mine.csv"
        mine.write_text("tile,split\na,test\nb,val\nc,train\nd,train\ne,train\nf,train\n")
        bring(roofseg, images, masks, "--split", mine, "--gsd", 1)
        assert read_split(Path("data/oslo"))["a"] == "test"
        capsys.readouterr()
        roofseg("check-data", "oslo")
        assert "1 (stated)" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("spoil", "options", "says"),
        [
            (lambda i, m: (i / "a.tif").write_bytes(b""), (), r"imagery/a\.tif: cannot be read"),
            (lambda i, m: (m / "a.tif").unlink(), (), "labels: no mask for a"),
            (
                lambda i, m: Path("data/oslo").mkdir(parents=True),
                (),
                "^data/oslo: already exists",
            ),
            (
                lambda i, m: Path("profiles/oslo.yaml").touch(),
                (),
                r"^profiles/oslo\.yaml: already exists",
            ),
            (
                lambda i, m: None,
                ("--base", "nosuch"),
                "^profiles: no profile 'nosuch'; choose one of: sample$",
            ),
            (
                lambda i, m: Path("profiles/sample.yaml").write_text("lr: 1\n"),
                (),
                r"^profiles/sample\.yaml: lr: found 1",
            ),
            (lambda i, m: None, ("--split", "nosuch.csv"), r"^nosuch\.csv: no such file"),
            (lambda i, m: None, ("--split", "~nobody-here/m.csv"), r"^~nobody-here/m\.csv: no su"),
            (lambda i, m: None, ("--val", "0.9", "--test", "0.2"), "^--val 0.9 and --test 0.2"),
            (lambda i, m: Path("data").touch(), (), "^data: File exists"),
            (lambda i, m: Path(".dvc").rename(".svc"), (), r"no \.dvc folder; expected the root"),
            (
                lambda i, m: Path(".dvc/config").write_text("[core\n"),
                (),
                "^`dvc add` fails: .*config file error.*at line 1.$",
            ),
        ],
        ids=[
            "a damaged tile",
            "a mask missing",
            "a dataset of that name",
            "a profile of that name",
            "no such base",
            "a broken base",
            "no such split",
            "no such user",
            "shares",
            "data is a file",
            "no DVC",
            "DVC fails",
        ],
    )
    def test_an_error_leaves_nothing(
        self,
        project: Path,
        tmp_path: Path,
        roofseg: Roofseg,
        spoil: Callable[[Path, Path], object],
        options: tuple[str, ...],
        says: str,
    ) -> None:
        images, masks = write_pairs(tmp_path)
        spoil(images, masks)
        before = contents(tmp_path)
        with pytest.raises(UserError, match=says):
            bring(roofseg, images, masks, *options)
        assert contents(tmp_path) == before
        assert not list(project.glob("data/.*"))

    @pytest.mark.parametrize("name", ["a b", "", ".oslo", "-x/y", "../oslo", "oslo/x", "ø", "a\n"])
    def test_invalid_names_are_errors(self, project: Path, roofseg: Roofseg, name: str) -> None:
        for command in (("new-dataset", "--imgs", "i", "--msks", "m"), ("check-data",)):
            with pytest.raises(UserError, match=f"^NAME: found {re.escape(repr(name))}; expected"):
                roofseg(*command, "--", name)
        with pytest.raises(UserError, match="dataset: found"):
            parse_params(SAMPLE.replace("dataset: sample", f"dataset: {json.dumps(name)}"))

    def test_a_name_that_is_too_long_is_an_error(self, project: Path, roofseg: Roofseg) -> None:
        with pytest.raises(UserError, match=r"^profiles/a+\.yaml: File name too long"):
            roofseg("new-dataset", "--imgs", "i", "--msks", "m", "--base", "sample", "a" * 300)

    @pytest.mark.whole
    def test_nothing_is_staged_in_git(
        self, project: Path, tmp_path: Path, roofseg: Roofseg
    ) -> None:
        """Even if DVC is set to stage the files that it adds, which are in a scratch folder."""
        run = {"cwd": project, "check": True, "capture_output": True, "text": True}
        subprocess.run([sys.executable, "-m", "dvc", "config", "core.autostage", "true"], **run)
        bring(roofseg, *write_pairs(tmp_path))
        listed = subprocess.run(["git", "ls-files", "data"], **run).stdout
        assert listed == ""

    @pytest.mark.whole
    def test_leftovers_of_a_killed_run_are_removed(
        self, project: Path, tmp_path: Path, roofseg: Roofseg
    ) -> None:
        for left in ("data/.oslo.abcd_123", "profiles/.oslo.yaml.abcd_123"):
            (project / left).mkdir(parents=True)
        bring(roofseg, *write_pairs(tmp_path))
        assert not list(project.glob("*/.oslo.*"))

    def test_a_full_disk_leaves_nothing(
        self, project: Path, tmp_path: Path, roofseg: Roofseg
    ) -> None:
        images, masks = write_pairs(tmp_path, change=lambda image: image.astype(np.uint16))
        before = contents(project)
        # One problem alone, and one remedy.
        says = r"^oslo/imgs/a\.tif: cannot be written; GDAL says: .*Free space on that disk.*\.$"
        with full_disk(10_000), pytest.raises(UserError, match=says):
            bring(roofseg, images, masks)
        assert contents(project) == before

    @pytest.mark.whole
    def test_a_stopped_command_leaves_nothing(self, project: Path, tmp_path: Path) -> None:
        images, masks = write_pairs(tmp_path)
        for folder, bands in ((images, 3), (masks, 1)):  # to check this tile takes seconds
            write_huge_raster(folder / "huge.tif", 18_000, bands)
        before = contents(project)
        command = [sys.executable, "-m", "roofseg", "new-dataset", "oslo", "--base", "sample"]
        with started(
            [*command, "--imgs", images, "--msks", masks],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as running:
            # until it has begun
            wait_until(lambda: list(project.glob("data/.oslo.*")), lambda: running.poll() is None)
            running.terminate()
            _, said = running.communicate()
        assert (running.returncode, said) == (143, STOPPED)
        assert contents(project) == before

    def test_a_project_without_write_permission_is_an_error(
        self, roofseg: Roofseg, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with public_folder() as public:
            images, masks = write_pairs(public)
            (public / "profiles").mkdir()
            (public / "profiles" / "sample.yaml").write_text(SAMPLE)
            (public / ".dvc").mkdir()
            before = contents(public)
            for folder in (public / "profiles", public):
                folder.chmod(0o555)
            monkeypatch.chdir(public)
            with nobody(), pytest.raises(UserError, match=r"^profiles/.*: Permission denied"):
                bring(roofseg, images, masks)
            assert contents(public) == before
            (public / "profiles").chmod(0o755)
            monkeypatch.undo()


@pytest.mark.parametrize("text", ["0", "grey", "inf", ""])
def test_a_value_for_unknown_pixels_is_a_number_but_0(text: str) -> None:
    assert unknown_value("127") == 127
    with pytest.raises(ArgumentTypeError, match="expected a number other than 0"):
        unknown_value(text)


@pytest.mark.parametrize("name", ["my tiles", "o'brien's $tuff `x`", "Ålesund"])
def test_make_passes_only_the_options_that_are_given(name: str) -> None:
    """A name may have any characters; empty variables give no options."""
    given = [f"NAME={name}", f"IMGS={name}", f"MSKS={name}/roofs.gpkg", "BLOCK=500", "BASE="]
    given += [
        "ALLOW_BALLPARK=yes",
        "MAX_EXPANSION=9",
        f"AREAS={name}",
        "AREAS_LAYER=a",
        "UNKNOWN=7",
    ]
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "new-dataset", *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    _, _, command = done.stdout.rpartition("roofseg new-dataset ")
    expected = [name, "--imgs", name, "--msks", f"{name}/roofs.gpkg", "--block", "500"]
    expected += ["--unknown", "7", "--areas", name, "--areas-layer", "a"]
    expected += ["--max-expansion", "9", "--allow-ballpark"]
    assert shlex.split(command.replace("\\\n", " ")) == expected


@pytest.mark.whole
def test_the_page_shows_what_the_command_prints(
    project: Path, tmp_path: Path, roofseg: Roofseg, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "own-tiles.md").read_text()
    _, listing, run = page.split("```console")[1].split("```")[0].split("$ ")
    command, _, shown = run.partition("\n")
    chips = tmp_path / "kathmandu" / "chips"
    write_chips(chips, 21, 16)
    assert listing.split()[2:-1] == sorted(path.name for path in chips.iterdir())[:3]
    (project / "profiles" / "inria.yaml").write_text((ROOT / "profiles/inria.yaml").read_text())
    roofseg(*re.sub("(?=kathmandu/)", f"{tmp_path}/", command).split()[1:])
    printed = " ".join(capsys.readouterr().out.split())
    for part in shown.partition("warning: ")[0].split("..."):
        assert " ".join(part.split()) in printed
    assert " ".join(shown[shown.index("patch_size is") :].split()) in printed


@pytest.mark.whole
def test_a_new_dataset_goes_through_the_pipeline(tmp_path: Path) -> None:
    """The commands that it prints work (git add, profile, dvc repro), with any names of tiles."""
    names = ("north 1", "Ålesund (øst)", "x.v2", "-e", "007", "NA")
    images, masks = write_pairs(tmp_path, names)
    (tmp_path / "project").mkdir()
    project = Project.create(tmp_path / "project")
    project.run("mkdir -p profiles && cp params.yaml profiles/tiny.yaml")
    project.roofseg(f"new-dataset oslo --imgs '{images}' --msks '{masks}' --base tiny")
    project.run("git add data/oslo profiles/oslo.yaml && git commit -qm 'Tiles of oslo'")
    project.commit("profile")
    project.roofseg("profile oslo")
    project.run("git commit -qam 'Recipe in force' && dvc repro")
    assert "oslo" in (project.folder / "metrics" / "leaderboard.md").read_text()
