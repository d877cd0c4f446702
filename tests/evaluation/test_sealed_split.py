from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import rasterio
from graph import ROOT
from project import PARAMS, git
from rasterio.transform import Affine
from tiny_dataset import SPLIT, P, make, write_dataset

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file, sha256_files, write_json
from roofseg.core.guard import SealedTestError
from roofseg.evaluation.sealed_split import StaysSealed, full_tiles, open_test
from roofseg.patches import Patch, read_patches, seen_tiles, write_seen_tiles
from roofseg.results.ledger import read_looks
from roofseg.tiles.manifest import read_manifest, write_manifest

DIGEST, OTHER = "0123456789ab", "ba9876543210"


def set_final(folder: Path, small: str | None) -> None:
    value = f'"{small}"' if small else "null"
    (folder / "params.yaml").write_text(PARAMS.replace("\n  small: null", f"\n  small: {value}"))


def commit(folder: Path, small: str | None) -> None:
    set_final(folder, small)
    git(folder, "add", "params.yaml")
    git(folder, "commit", "-q", "--allow-empty", "-m", "params")


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    make(write_dataset(folder / "data", SPLIT), folder / "patches")
    return folder / "patches"


@pytest.fixture
def project(tmp_path: Path, patches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new git repository without commits, as the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(patches, tmp_path / "patches")
    write_json(tmp_path / "model" / "recipe.json", {"training_inputs": "1" * 64})
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    git(tmp_path, "init", "-q")
    return tmp_path


LEDGER = Path("looks.csv")


def opened(
    attempt: str, final: str | None, digest: str = DIGEST, *, copied: bool = False
) -> list[Patch]:
    return open_test(
        Path("patches"),
        attempt=attempt,
        digest=digest,
        final=final,
        model=Path("model"),
        dataset="tiny",
        ledger=LEDGER,
        experiment="bold-name",
        copied=copied,
    )


def names(final: str | None, digest: str = DIGEST) -> list[str] | None:
    """Open test, and return the names of its tiles, or None if it stays sealed.

    Also asserts that the ledger gets a look if and only if test opens.
    """
    before = len(read_looks(LEDGER))
    (Path("model") / "model.safetensors").write_text(f"weights {before}")
    patches = None
    try:
        patches = opened("small", final, digest)
    except StaysSealed:
        pass
    finally:
        assert LEDGER.exists()
        assert len(read_looks(LEDGER)) == before + (patches is not None)
    return patches and [patch.tile for patch in patches]


def test_opens_if_commit_parameters_and_model_agree(project: Path) -> None:
    commit(project, DIGEST)
    assert names(final=DIGEST) == ["d"]


def test_opens_only_for_the_final_attempt(project: Path) -> None:
    commit(project, DIGEST)
    with pytest.raises(StaysSealed, match=r"roofseg finalize smaller"):
        opened("smaller", final=None)
    with pytest.raises(UserError, match=r"final\.smaller"):
        opened("smaller", final=DIGEST)


def test_stays_sealed_without_a_final_digest(project: Path) -> None:
    commit(project, None)
    assert names(final=None) is None
    # A committed digest does not open test while params.yaml says null.
    commit(project, DIGEST)
    assert names(final=None) is None


def test_another_recipe_stays_sealed(project: Path) -> None:
    # `dvc exp run -S lr=...` does this: the model's digest differs from the committed one.
    commit(project, DIGEST)
    assert names(final=DIGEST, digest=OTHER) is None


@pytest.mark.parametrize("before", [None, OTHER])
def test_a_digest_that_is_not_committed_is_an_error(project: Path, before: str | None) -> None:
    # `dvc exp run -S final.small=...` does this: params.yaml has the model's digest, HEAD has not.
    commit(project, before)
    set_final(project, DIGEST)
    git(project, "add", "params.yaml")  # staged is not committed
    with pytest.raises(UserError, match=r"git commit params.yaml") as caught:
        names(final=DIGEST)
    message = str(caught.value)
    assert message.startswith(f"params.yaml: final.small is '{DIGEST}' here, but ")
    assert (before or "null") in message
    # Once committed, it opens.
    commit(project, DIGEST)
    assert names(final=DIGEST) == ["d"]


def test_only_the_newest_commit_counts(project: Path) -> None:
    commit(project, DIGEST)
    commit(project, OTHER)
    with pytest.raises(UserError, match=OTHER):
        names(final=DIGEST)


def test_stays_sealed_without_a_commit(project: Path) -> None:
    assert names(final=None) is None
    with pytest.raises(StaysSealed, match=r"for a committed recipe, and git says: fatal: .*HEAD"):
        opened("small", final=DIGEST)


def test_sealed_outside_git(project: Path) -> None:
    commit(project, DIGEST)
    shutil.rmtree(project / ".git")
    with pytest.raises(StaysSealed, match=r"git says: fatal: not a git repository"):
        opened("small", final=DIGEST)
    assert read_looks(LEDGER) == []


def test_sealed_without_git_itself(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(project, DIGEST)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StaysSealed, match=r"git says: git: command not found"):
        opened("small", final=DIGEST)


def test_sealed_in_a_copy_of_the_project(project: Path) -> None:
    commit(project, DIGEST)
    with pytest.raises(StaysSealed, match=r"`dvc repro` in the workspace"):
        opened("small", final=DIGEST, copied=True)
    assert names(final=DIGEST) == ["d"]
    # Uncommitted code does not stop an experiment in a copy, which cannot open test anyway.
    (project / "src").mkdir()
    (project / "src" / "new.py").write_text("new")
    with pytest.raises(StaysSealed, match=r"`dvc repro` in the workspace"):
        opened("small", final=DIGEST, copied=True)


@pytest.mark.parametrize("name", ["src/roofseg/training/loss.py", "stages/train.py", "dvc.yaml"])
def test_code_that_is_not_committed_is_an_error(project: Path, name: str) -> None:
    commit(project, DIGEST)
    file = project / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("new")
    with pytest.raises(UserError, match=r": not committed\. The test split opens only"):
        names(final=DIGEST)
    git(project, "add", name)
    commit(project, DIGEST)
    assert names(final=DIGEST) == ["d"]
    file.write_text("edited")
    with pytest.raises(UserError, match=name):
        names(final=DIGEST)
    # A recipe that is not final needs no commit.
    assert names(final=DIGEST, digest=OTHER) is None


def test_committed_lines_of_a_ledger_are_restored(project: Path) -> None:
    """`dvc exp apply` replaces the ledger by that of an older revision."""
    commit(project, DIGEST)
    assert names(final=DIGEST) == ["d"]
    full = LEDGER.read_text()
    git(project, "add", str(LEDGER))
    commit(project, DIGEST)
    LEDGER.write_text(full.splitlines()[0] + "\n")
    git(project, "add", str(LEDGER))
    commit(project, DIGEST)
    LEDGER.unlink()
    with pytest.raises(StaysSealed):
        opened("small", final=None)
    assert LEDGER.read_text() == full
    names(final=DIGEST)
    assert [kind for kind, _ in read_looks(LEDGER)] == ["looked", "reproduced"]


def test_sealed_patches_need_not_be_there(project: Path) -> None:
    # `dvc pull patches/train patches/val` is enough to train and to score val.
    shutil.rmtree(project / "patches" / "test")
    commit(project, DIGEST)
    assert names(final=None) is None
    assert names(final=DIGEST, digest=OTHER) is None
    with pytest.raises(UserError, match=r"crops.csv: no such file"):
        names(final=DIGEST)


def test_an_old_commit_with_other_keys_does_not_stop_val(project: Path) -> None:
    set_final(project, None)
    (project / "params.yaml").write_text("learning_rate: 1\n")
    git(project, "add", "params.yaml")
    git(project, "commit", "-q", "-m", "before this version")
    assert names(final=None) is None
    with pytest.raises(UserError, match=r"params.yaml of HEAD: learning_rate: unknown key"):
        names(final=DIGEST)


def test_a_project_below_the_root_of_its_repository(
    project: Path, patches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = project / "roofs"
    shutil.copytree(patches, below / "patches")
    shutil.copytree(project / "model", below / "model")
    commit(project, OTHER)
    commit(below, DIGEST)
    monkeypatch.chdir(below)
    assert names(final=DIGEST) == ["d"]


def test_a_look_records_the_model_and_the_commit(project: Path, patches: Path) -> None:
    commit(project, DIGEST)
    names(final=DIGEST)
    ((kind, look),) = read_looks(LEDGER)
    head = (project / ".git" / "refs" / "heads").rglob("*")
    assert look.revision in {file.read_text().strip() for file in head if file.is_file()}
    assert (kind, look.digest, look.dataset) == ("looked", DIGEST, "tiny")
    assert look.training_inputs == "1" * 64
    assert look.weights == sha256_file(project / "model" / "model.safetensors")
    assert look.test_set == sha256_files([patches / "test"])
    assert look.experiment == "bold-name"
    assert datetime.fromisoformat(look.time).utcoffset() == timedelta(0)


def test_open_test_passes_the_guard_and_nothing_else_does(project: Path) -> None:
    commit(project, DIGEST)
    code = f"""
from pathlib import Path
from roofseg.core.guard import SealedTestError, install_guard
from roofseg.patches import read_patches
from roofseg.evaluation.sealed_split import open_test
test = Path("patches/test")
install_guard([test], "evaluate")
print([patch.gsd for patch in read_patches(Path("patches/val"))])
try:
    read_patches(test)
except SealedTestError:
    print("sealed")
opened = open_test(test.parent, attempt="small", digest="{DIGEST}", final="{DIGEST}",
                   model=Path("model"), dataset="tiny", ledger=Path("looks.csv"))
print([patch.gsd for patch in opened])
"""
    # In a process of its own: an audit hook cannot be removed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[0.3]", "sealed", "[0.3]"]


# Whole tiles


@pytest.fixture
def tiles(project: Path, patches: Path) -> Path:
    shutil.copytree(patches.parent / "data", project / "tiles")
    seen = seen_tiles(Path("patches"), dataset="tiny", patch_size=P)
    write_seen_tiles(Path("model") / "tiles.csv", seen)
    return Path("tiles")


def whole(patches: list[Patch], tiles: Path) -> list[str]:
    listing = Path("patches") / "tiles.csv"
    return [
        tile.name
        for tile in full_tiles(patches, dataset=tiles, listing=listing, model=Path("model"))
    ]


def test_whole_tiles_of_val_open_and_those_of_train_and_test_do_not(tiles: Path) -> None:
    assert whole(read_patches(Path("patches") / "val"), tiles) == ["c"]
    for split in ("test", "train"):
        with pytest.raises(SealedTestError, match=f"is in {split} and must not be scored"):
            whole(read_patches(Path("patches") / split), tiles)


def test_whole_tiles_of_test_open_with_the_patches_that_were_opened(
    project: Path, tiles: Path
) -> None:
    commit(project, DIGEST)
    patches = opened("small", DIGEST)
    assert whole(patches, tiles) == ["d"]
    # Reading the same patches without `open_test` does not open the tiles.
    with pytest.raises(SealedTestError):
        whole(read_patches(Path("patches") / "test"), tiles)


def test_whole_tiles_are_those_that_the_patches_were_cut_from(tiles: Path) -> None:
    val = read_patches(Path("patches") / "val")
    mask = tiles / "msks" / "c.tif"
    mask.write_bytes(mask.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"c\.tif: not the file that its patch was cut from.*dvc"):
        whole(val, tiles)
    mask.unlink()
    with pytest.raises(UserError, match=r"c\.tif: no such file, .*`dvc pull tiles/msks/c\.tif`"):
        whole(val, tiles)
    listing = Path("patches", "tiles.csv")
    lines = listing.read_text().splitlines(keepends=True)
    listing.write_text("".join(line for line in lines if not line.startswith("c,")))
    with pytest.raises(UserError, match=r"tiles\.csv: lacks tile c, .*`dvc checkout patches`"):
        whole(val, tiles)
    listing.unlink()
    with pytest.raises(UserError, match=r"tiles\.csv: no such file\. .*dvc repro make_patches"):
        whole(val, tiles)


def test_a_tile_that_shows_ground_of_another_split_is_not_scored_whole(tiles: Path) -> None:
    listing = Path("patches", "tiles.csv")
    write_manifest(listing, [replace(read_manifest(listing)["c"], shared="d")])
    with pytest.raises(UserError, match=r"tile c \(val\) overlaps d of another split"):
        whole(read_patches(Path("patches") / "val"), tiles)


def test_whole_tiles_come_with_the_value_of_unknown_pixels(tiles: Path) -> None:
    val = read_patches(Path("patches") / "val")
    listing = Path("patches") / "tiles.csv"
    for text, expected in ((None, None), ("127\n", 127)):
        if text:
            (tiles / "msks" / "unknown.txt").write_text(text)
        (pair,) = full_tiles(val, dataset=tiles, listing=listing, model=Path("model"))
        assert pair.unknown == expected


def test_ground_that_an_earlier_model_has_seen_is_not_scored_whole(tiles: Path) -> None:
    """Around a patch too, which alone is compared before training."""
    with rasterio.open(tiles / "imgs" / "c.tif") as source:
        crs, place = source.crs.to_string(), source.transform
    old = seen_tiles(Path("patches"), dataset="old", patch_size=P)[0]
    for split, offset in (("train", 96 - 8), ("train", 96), ("val", 0)):
        moved = place @ Affine.translation(offset, 0)
        numbers = " ".join(str(value) for value in list(moved)[:6])
        row = old | {"split": split, "image_sha256": "0" * 64, "crs": crs, "transform": numbers}
        write_seen_tiles(Path("model") / "tiles.csv", [row])
        if offset == 88:
            with pytest.raises(UserError, match=r"share 8 x 64 px .*`evaluate_full_tiles: false`"):
                whole(read_patches(Path("patches") / "val"), tiles)
        else:
            assert whole(read_patches(Path("patches") / "val"), tiles) == ["c"]


def test_the_record_of_a_declared_prior_must_be_committed(project: Path) -> None:
    """The recipe digest does not cover the commit of the hub that it pins."""
    record = {"training_inputs": "1" * 64, "prior": {"prior": "mine", "declared": {"hub": "x"}}}
    write_json(project / "model" / "recipe.json", record)
    commit(project, DIGEST)
    write_json(project / "weights" / "mine.json", {"revision": "1"})
    write_json(project / "weights" / "scratch.json", {})
    with pytest.raises(UserError, match=r"^weights/(mine\.json)?: not committed\. "):
        names(final=DIGEST)
    git(project, "add", "weights/mine.json")
    commit(project, DIGEST)
    assert names(final=DIGEST) == ["d"]
    write_json(project / "weights" / "mine.json", {"revision": "2"})
    with pytest.raises(UserError, match=r"^weights/mine\.json: not committed\. "):
        names(final=DIGEST)
