from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graph import ROOT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_dataset import SPLIT, P, make, write_dataset

from roofseg.core.errors import UserError
from roofseg.core.images import read_mask, write_png
from roofseg.patches import read_crops, read_patches


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data" / "mine", SPLIT, size=96)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "patches"


class TestReading:
    @pytest.fixture
    def folder(self, dataset: Path, out: Path) -> Path:
        make(dataset, out)
        return out / "train"

    def test_odd_names_stay_text(self, tmp_path: Path, out: Path) -> None:
        make(write_dataset(tmp_path / "data", {"007": "train", "NA": "val", "1e5": "test"}), out)
        names = [read_patches(out / split)[0].tile for split in ("train", "val", "test")]
        assert names == ["007", "NA", "1e5"]

    @pytest.mark.parametrize("name", ["images/a.jpg", "masks/a.png", "crops.csv"])
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"{name}: no such file.*dvc repro make_patches"):
            read_patches(folder)

    @pytest.mark.parametrize("name", ["images/b.jpg", "masks/b.png"])
    def test_a_broken_file(self, folder: Path, name: str) -> None:
        (folder / name).write_bytes(b"not an image")
        with pytest.raises(UserError, match=name):
            read_patches(folder)

    @pytest.mark.parametrize(
        ("name", "shape"),
        [("masks/a.png", (32, 32)), ("masks/b.png", (32, 32)), ("images/a.jpg", (P, P + 1, 3))],
    )
    def test_a_file_of_another_size(self, folder: Path, name: str, shape: tuple[int, ...]) -> None:
        write_png(folder / name, np.zeros(shape, np.uint8))
        with pytest.raises(UserError, match=r"px; expected \d+ x \d+"):
            read_patches(folder)

    @pytest.mark.parametrize("text", ["", "tile,row\na,0\n", "tile\na,b\nc,d,e\n"])
    def test_a_table_of_another_shape(self, folder: Path, text: str) -> None:
        (folder / "crops.csv").write_text(text)
        with pytest.raises(UserError, match=r"crops\.csv: (found the columns|not a table)"):
            read_crops(folder)

    def test_every_file_is_opened_by_python(self, folder: Path) -> None:
        # The guard of sealed files watches the "open" event, which C libraries do not raise.
        code = (
            "import sys; opened = []; from pathlib import Path\n"
            "from roofseg.patches import read_patches; import pandas\n"
            "sys.addaudithook(lambda e, a: opened.append(str(a[0])) if e == 'open' else None)\n"
            "read_patches(Path(sys.argv[1])); print(*opened, sep='\\n')"
        )
        opened = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env={"PYTHONPATH": "src"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert {str(path) for path in folder.rglob("*") if path.is_file()} <= set(opened)


@given(hnp.arrays(np.uint8, st.just((32, 32)), elements=st.integers(0, 1)))
def test_masks_are_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, mask) -> None:
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    write_png(path, mask * np.uint8(255))
    np.testing.assert_array_equal(read_mask(path), mask)
