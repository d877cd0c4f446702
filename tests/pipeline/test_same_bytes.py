"""Generated tiles and cut patches have the same bytes whatever instruction set the CPU has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from graph import ROOT
from tiny_dataset import SPLIT, write_dataset

from roofseg.core.images import portable_opencv
from roofseg.cutting.cut import make_patches

pytestmark = pytest.mark.whole

# Tiles of four neighbourhoods, one with an open centre, and patches cut from them.
CODE = """
import sys
from pathlib import Path
from roofseg.core.files import sha256_files
from roofseg.cutting.cut import make_patches
from roofseg.synthetic.tile import write_sample

folder = Path("sample")
write_sample(folder / "imgs", folder / "msks", tiles=4, size=320, seed=42)
splits = ("train", "train", "val", "test")
lines = "".join(f"sample0{index},{split}\\n" for index, split in enumerate(splits, start=1))
(folder / "split.csv").write_text("tile,split\\n" + lines)
(folder / "nudges.csv").write_text("tile,row,col\\n")
make_patches(
    folder, Path("patches"), patch_size=224, min_building_fraction=0.05, warn=lambda _: None
)
print(sha256_files([folder]), sha256_files([Path("patches")]))
"""

NUMPY_DISPATCHED = " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
CPUS = {
    "without AVX2": {
        "OPENCV_CPU_DISABLE": "AVX2,FP16,FMA3",
        "OPENCV_IPP": "sse42",
    },
    "without any": {
        "OPENCV_CPU_DISABLE": "AVX2,FP16,FMA3,AVX,SSE4.2,POPCNT,SSE4.1,SSSE3",
        "OPENCV_IPP": "disabled",
        "NPY_DISABLE_CPU_FEATURES": NUMPY_DISPATCHED,
        "OPENBLAS_CORETYPE": "Prescott",
        "JSIMD_FORCENONE": "1",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA",
    },
}


def hashes(folder: Path, **cpu: str) -> list[str]:
    """SHA-256 of tiles and of patches that a process makes in ``folder`` on such a CPU."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **cpu},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def on_this_cpu(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return hashes(tmp_path_factory.mktemp("cpu") / "this")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the switches are those of x86-64")
@pytest.mark.parametrize("cpu", CPUS)
def test_tiles_and_patches_are_the_same_on_another_cpu(
    on_this_cpu: list[str], tmp_path: Path, cpu: str
) -> None:
    assert hashes(tmp_path / "other", **CPUS[cpu]) == on_this_cpu


def test_patches_are_cut_with_portable_opencv(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", {**SPLIT, "spare": "train"})
    split = dataset / "split.csv"
    split.write_text(split.read_text().replace("spare,train\n", ""))
    seen = []

    def warn(message: str) -> None:
        seen.append((message.partition("split for ")[2], cv2.useOptimized()))

    make_patches(dataset, tmp_path / "out", patch_size=64, min_building_fraction=0.0, warn=warn)
    assert seen == [("spare: left out", False)]


def test_opencv_computes_the_same_bytes_in_every_run() -> None:
    # An image as large as a tile: OpenCV divides the rows among threads, which round differently.
    noise = np.random.default_rng(0).random((1330, 1330), dtype=np.float32)
    with portable_opencv():
        blurred = {cv2.GaussianBlur(noise, (0, 0), 0.8).tobytes() for _ in range(20)}
    assert len(blurred) == 1


def settings() -> tuple[bool, bool, int]:
    return cv2.useOptimized(), cv2.ipp.useIPP(), cv2.getNumThreads()


def test_opencv_is_as_before_after_the_block() -> None:
    before = settings()
    inside = []

    def fail() -> None:
        with portable_opencv():
            inside.append(settings())
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert inside == [(False, False, 1)]
    assert settings() == before
