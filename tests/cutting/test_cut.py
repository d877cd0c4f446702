from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from graph import ROOT
from raster_files import name_bands
from rasterio.transform import Affine
from tiny_dataset import CRS, SPLIT, TRANSFORM, P, make, tile_pixels, write_dataset, write_raster

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file
from roofseg.core.images import UNKNOWN, read_mask
from roofseg.cutting.cut import OUTLINE
from roofseg.patches import CROPS_COLUMNS, read_crops, read_patches
from roofseg.tiles.manifest import read_manifest


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data" / "mine", SPLIT, size=96)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "patches"


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


class TestMakePatches:
    def test_writes_the_layout_and_nothing_else(self, dataset: Path, out: Path) -> None:
        assert make(dataset, out) == []
        assert list(digests(out)) == [
            "overview.png",
            "test/crops.csv",
            "test/images/d.jpg",
            "test/masks/d.png",
            "tiles.csv",
            "train/crops.csv",
            "train/images/a.jpg",
            "train/images/b.jpg",
            "train/masks/a.png",
            "train/masks/b.png",
            "val/crops.csv",
            "val/images/c.jpg",
            "val/masks/c.png",
        ]
        stored = cv2.imdecode(np.fromfile(out / "val/masks/c.png", np.uint8), cv2.IMREAD_UNCHANGED)
        assert stored.shape == (P, P)
        assert np.unique(stored).tolist() == [0, 255]

    @pytest.mark.parametrize("suffix", [".tif", ".png"])
    def test_patches_are_the_tiles_pixels(self, tmp_path: Path, out: Path, suffix: str) -> None:
        dataset = write_dataset(tmp_path / "data", SPLIT, suffix=suffix, georeferenced=False)
        assert make(dataset, out) == []
        for split in ("train", "val", "test"):
            crops = read_crops(out / split)
            patches = read_patches(out / split)
            assert [patch.tile for patch in patches] == crops["tile"].tolist()
            for patch, crop in zip(patches, crops.itertuples(), strict=True):
                rows, cols = slice(crop.row, crop.row + P), slice(crop.col, crop.col + P)
                mask = read_mask(dataset / "msks" / f"{patch.tile}{suffix}")[rows, cols]
                np.testing.assert_array_equal(patch.mask, mask)
                assert crop.building_fraction == pytest.approx(mask.mean(), abs=1e-6)
                # JPEG changes values, but roof and ground stay apart and in place.
                assert patch.image.shape == (P, P, 3)
                brightness = patch.image.mean(axis=2)
                assert ((brightness > 140) == (mask == 1)).mean() > 0.98

    def test_colours_keep_their_order(self, tmp_path: Path, out: Path) -> None:
        dataset = write_dataset(tmp_path / "data", SPLIT)
        red = np.zeros((96, 96, 3), np.uint8)
        red[:, :, 0] = 200
        write_raster(dataset / "imgs" / "c.tif", red)
        make(dataset, out)
        (patch,) = read_patches(out / "val")
        assert np.abs(patch.image.astype(int) - [200, 0, 0]).max() <= 3

    def test_bands_in_another_order_are_noted_in_one_line(self, dataset: Path, out: Path) -> None:
        make(dataset, out)
        (expected,) = read_patches(out / "val")
        for name in ("a", "c"):
            path = dataset / "imgs" / f"{name}.tif"
            with rasterio.open(path) as source:
                pixels, profile = source.read().transpose(1, 2, 0), source.profile
            place = {"crs": profile["crs"], "transform": profile["transform"]}
            write_raster(path, pixels[:, :, ::-1], photometric="minisblack", **place)
            name_bands(path, "blue", "green", "red")
        assert make(dataset, out) == [
            "3 bands of uint8: bands 3, 2, 1 are read as red, green, blue (by colour "
            "interpretation): a, c"
        ]
        (patch,) = read_patches(out / "val")
        np.testing.assert_array_equal(patch.image, expected.image)

    def test_crops_record_the_place_of_a_patch(self, dataset: Path, out: Path) -> None:
        (dataset / "nudges.csv").write_text("tile,row,col\na,32,7\n")
        make(dataset, out)
        crops = read_crops(out / "train")
        assert tuple(crops.columns) == CROPS_COLUMNS
        nudged = crops.set_index("tile").loc["a"]
        assert (nudged["row"], nudged["col"], nudged["method"]) == (32, 7, "nudged")
        assert nudged["crs"] == CRS
        assert nudged["gsd"] == 0.3
        found = Affine(*map(float, nudged["transform"].split()))
        assert found.almost_equals(Affine(0.3, 0, 621030.9, 0, -0.3, 3349990.4), precision=1e-6)

    def test_unknown_georeferencing_is_empty(self, tmp_path: Path, out: Path) -> None:
        make(write_dataset(tmp_path / "data", SPLIT, georeferenced=False), out)
        crop = read_crops(out / "val").iloc[0]
        assert (crop["crs"], crop["transform"]) == ("", "")
        assert np.isnan(crop["gsd"])
        line = (out / "val" / "crops.csv").read_text().splitlines()[1]
        assert line.split(",")[5:8] == ["", "", ""]
        assert crop["image_sha256"] == sha256_file(tmp_path / "data" / "imgs" / "c.tif")

    def test_slides_off_an_empty_centre(self, dataset: Path, out: Path) -> None:
        mask = np.zeros((96, 96), np.uint8)
        mask[:, 90:] = 255
        write_raster(dataset / "msks" / "c.tif", mask)
        assert make(dataset, out) == []
        crop = read_crops(out / "val").iloc[0]
        # The nearest window with at least 5 % has 4 of 64 columns of building and ends at 94.
        assert (crop["row"], crop["col"], crop["method"]) == (16, 30, "slid")
        assert crop["building_fraction"] == 4 / 64

    def test_if_no_window_has_enough_the_fullest_is_cut_with_a_warning(
        self, dataset: Path, out: Path
    ) -> None:
        mask = np.zeros((96, 96), np.uint8)
        mask[0, 0] = mask[95, 95] = mask[95, 94] = 1
        write_raster(dataset / "msks" / "c.tif", mask)
        (warning,) = make(dataset, out)
        assert "tile c (val)" in warning
        assert "5.00%" in warning
        crop = read_crops(out / "val").iloc[0]
        assert (crop["row"], crop["col"], crop["method"]) == (32, 32, "slid")

    def test_a_nudge_to_an_empty_window_gives_no_warning(self, dataset: Path, out: Path) -> None:
        write_raster(dataset / "msks" / "c.tif", np.zeros((96, 96), np.uint8))
        (dataset / "nudges.csv").write_text("tile,row,col\nc,0,0\n")
        assert make(dataset, out) == []

    def test_unlisted_tiles_are_named_in_one_warning(self, dataset: Path, out: Path) -> None:
        for name in ("spare", "another"):
            write_raster(dataset / "imgs" / f"{name}.tif", np.zeros((9, 9, 3), np.uint8))
        (dataset / "nudges.csv").write_text("tile,row,col\nspare,500,500\n")
        (warning,) = make(dataset, out)
        assert "another, spare: left out" in warning
        assert not list(out.rglob("*spare*"))

    def test_the_same_bytes_every_time(self, dataset: Path, out: Path, tmp_path: Path) -> None:
        make(dataset, out)
        make(dataset, tmp_path / "again")
        assert digests(out) == digests(tmp_path / "again")

    def test_lists_the_tiles_by_their_bytes(self, dataset: Path, out: Path) -> None:
        make(dataset, out)
        listed = read_manifest(out / "tiles.csv")
        assert {name: tile.split for name, tile in listed.items()} == SPLIT
        for name, tile in listed.items():
            assert (tile.image, tile.mask) == (f"{name}.tif", f"{name}.tif")
            assert tile.image_sha256 == sha256_file(dataset / "imgs" / tile.image)
            assert tile.mask_sha256 == sha256_file(dataset / "msks" / tile.mask)
            assert tile.shared == ""  # the tiles are side by side
            crop = read_crops(out / tile.split).set_index("tile").loc[name]
            assert (tile.crs, tile.transform) == (crop["crs"], crop["transform"])
            assert tile.transform.startswith("0.3 0.0 62")

    def test_lists_tiles_of_two_splits_that_overlap_where_their_patches_do_not(
        self, tmp_path: Path, out: Path
    ) -> None:
        dataset = write_dataset(tmp_path / "data", SPLIT)
        for column, name in enumerate(["b", "a", "c", "d"]):
            image, mask = tile_pixels(column, 96)
            place = TRANSFORM @ Affine.translation(column * 86, 0)  # 10 px shared; patches keep 16
            write_raster(dataset / "imgs" / f"{name}.tif", image, crs=CRS, transform=place)
            write_raster(dataset / "msks" / f"{name}.tif", mask, crs=CRS, transform=place)
        (dataset / "nudges.csv").write_text("tile,row,col\na,16,16\nb,16,16\nc,16,16\nd,16,16\n")
        make(dataset, out)
        shared = {name: tile.shared for name, tile in read_manifest(out / "tiles.csv").items()}
        assert shared == {"b": "", "a": "c", "c": "a d", "d": "c"}  # a and b are both in train

    def test_names_the_first_of_many_overlaps(self, tmp_path: Path, out: Path) -> None:
        split = {f"t{number}": ("train", "val", "test")[number % 3] for number in range(9)}
        dataset = write_dataset(tmp_path / "data", split)
        for number, name in enumerate(split):
            image, mask = tile_pixels(number, 96)
            for folder, pixels in (("imgs", image), ("msks", mask)):
                path = dataset / folder / f"{name}.tif"
                write_raster(path, pixels, crs=CRS, transform=TRANSFORM)
        with pytest.raises(UserError) as error:
            make(dataset, out)
        # 27 pairs of tiles in two splits, of which cut.PAIRS_NAMED are named.
        assert str(error.value).count(" px of ground") == 20
        assert "; and 7 more. Put the tiles into one split" in str(error.value)

    def test_replaces_the_files_of_an_earlier_run(self, dataset: Path, out: Path) -> None:
        make(dataset, out)
        fresh = digests(out)
        (out / "train" / "images" / "leftover.jpg").touch()
        make(dataset, out)
        assert digests(out) == fresh

    def test_a_failure_leaves_existing_files_unchanged(self, dataset: Path, out: Path) -> None:
        make(dataset, out)
        before = digests(out)
        last = dataset / "imgs" / "d.tif"  # test comes last: train and val are done by then
        last.write_bytes(last.read_bytes()[:-1000])
        with pytest.raises(UserError, match=r"d\.tif: cannot be read"):
            make(dataset, out, patch_size=32)
        assert digests(out) == before
        assert sorted(path.name for path in out.iterdir()) == [
            "overview.png",
            "test",
            "tiles.csv",
            "train",
            "val",
        ]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("a,33,0", r"nudges\.csv: tile a is nudged to row 33, col 0.*row can be 0 to 32"),
            ("a,0,33", r"tile a is nudged to row 0, col 33"),
            ("ghost,0,0", r"nudges\.csv: no tile in .*imgs is named ghost"),
        ],
    )
    def test_a_nudge_that_fits_no_window(
        self, dataset: Path, out: Path, line: str, message: str
    ) -> None:
        (dataset / "nudges.csv").write_text(f"tile,row,col\n{line}\n")
        with pytest.raises(UserError, match=message):
            make(dataset, out)

    def test_a_tile_as_large_as_a_patch(self, dataset: Path, out: Path) -> None:
        assert make(dataset, out, patch_size=96) == []
        assert read_patches(out / "val")[0].mask.shape == (96, 96)

    def test_starts_without_the_training_stack(self) -> None:
        code = "import sys, roofseg.cutting.cut; print(*sys.modules)"
        found = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": "src"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert "roofseg.patches" in found
        assert not {"torch", "lightning", "pandas", "matplotlib"} & set(found)


class TestOverview:
    def test_shows_every_patch_with_an_outline(self, tmp_path: Path, out: Path) -> None:
        names = {f"tile_{i}": "train" for i in range(7)} | {"x": "val", "y": "test"}
        make(write_dataset(tmp_path / "data", names), out)
        sheet = cv2.imdecode(np.fromfile(out / "overview.png", np.uint8), cv2.IMREAD_COLOR)[
            ..., ::-1
        ]
        outlined = (sheet == OUTLINE).all(axis=2).astype(np.uint8)
        # One roof per tile, so one outline per patch.
        count, _ = cv2.connectedComponents(outlined)
        assert count - 1 == len(names)

    def test_names_of_any_length_and_script_fit(self, tmp_path: Path, out: Path) -> None:
        names = {"m" * 90: "train", "münchen 東京": "val", "x": "test"}
        make(write_dataset(tmp_path / "data", names), out)
        short = {"m": "train", "münchen 東京": "val", "x": "test"}
        make(write_dataset(tmp_path / "short", short), tmp_path / "short_out")
        shapes = [
            cv2.imdecode(np.fromfile(folder / "overview.png", np.uint8), cv2.IMREAD_COLOR)
            for folder in (out, tmp_path / "short_out")
        ]
        assert shapes[0].shape == shapes[1].shape
        # The row is empty to the right of the first thumbnail, so the name was shortened.
        assert (shapes[0][:, 16 + 320 + 4 :][120:500] == 255).all()


@pytest.mark.whole
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_large_tile_needs_little_memory(tmp_path: Path) -> None:
    """Cutting sliding windows from tiles of 5000 x 5000 px needs less than 300 MB."""
    size = 5000
    mask = np.zeros((size, size), np.uint8)
    mask[100:900, 100:900] = 255
    for value, name in enumerate(SPLIT):
        image = np.full((size, size, 3), value, np.uint8)
        for folder, pixels in {"imgs": image, "msks": mask}.items():
            write_raster(tmp_path / folder / f"{name}.tif", pixels, compress="deflate", tiled=True)
    lines = "".join(f"{name},{split}\n" for name, split in SPLIT.items())
    (tmp_path / "split.csv").write_text(f"tile,split\n{lines}")
    (tmp_path / "nudges.csv").write_text("tile,row,col\n")
    code = (
        "from pathlib import Path; from roofseg.cutting.cut import make_patches\n"
        "make_patches(Path('.'), Path('patches'), patch_size=1024, min_building_fraction=0.05,"
        " warn=print)\n"
        # The peak of this process alone: getrusage would count its parent's memory at the fork.
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    src = ROOT / "src"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(src)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(read_crops(tmp_path / "patches" / "train").method) == {"slid"}
    assert int(done.stdout.split()[-1]) * 1024 < 300e6


class TestUnknown:
    """Tiles some of whose pixels nobody has labelled."""

    def unlabel(self, dataset: Path, name: str, rows: slice) -> None:
        """Declare 127, and give it to some rows of a mask."""
        path = dataset / "msks" / f"{name}.tif"
        with rasterio.open(path) as source:
            mask, place = source.read(1), {"crs": source.crs, "transform": source.transform}
        mask[rows] = 127
        write_raster(path, mask, **place)
        (dataset / "msks" / "unknown.txt").write_text("127\n")

    def test_patches_hold_one_value_for_them(self, dataset: Path, out: Path) -> None:
        make(dataset, out)
        before = digests(out)
        self.unlabel(dataset, "a", slice(0, 40))
        assert make(dataset, out, fraction=0) == []
        row = read_crops(out / "train").set_index("tile").loc["a"]
        (patch, other) = read_patches(out / "train")
        assert (patch.mask == UNKNOWN).mean() == (40 - row.row) / P
        assert (patch.mask == 1).sum() / (patch.mask != UNKNOWN).sum() == pytest.approx(
            row.building_fraction, abs=1e-6
        )
        assert not (other.mask == UNKNOWN).any()
        stored = cv2.imdecode(np.fromfile(out / "train/masks/a.png", np.uint8), -1)
        assert set(np.unique(stored)) <= {0, 127, 255}
        # Nothing else changes, except the sheet and the hash of the mask.
        changed = {name for name, digest in digests(out).items() if digest != before[name]}
        assert changed >= {"overview.png", "tiles.csv", "train/masks/a.png"}
        assert not {name for name in changed if name.startswith(("val", "test"))}

    def test_too_few_of_them_are_a_warning(self, dataset: Path, out: Path) -> None:
        self.unlabel(dataset, "a", slice(10, 96))
        (line,) = make(dataset, out)
        assert line.startswith(
            "tile a (train): no window of 64 px is labelled in 50% of its pixels; cut the window "
            "with the most, 15.62%, at row 0"
        )

    def test_a_patch_without_any_is_an_error(self, dataset: Path, out: Path) -> None:
        self.unlabel(dataset, "a", slice(0, 96))
        with pytest.raises(UserError, match=r"a\.tif: no pixel .* Take the tile out of split\.csv"):
            make(dataset, out)
        self.unlabel(dataset, "a", slice(0, 96))
        (dataset / "nudges.csv").write_text("tile,row,col\na,0,0\n")
        with pytest.raises(UserError, match=r"a\.tif: no pixel .* Correct nudges\.csv"):
            make(dataset, out)
        assert not out.exists() or not list(out.iterdir())

    def test_the_value_must_be_declared(self, dataset: Path, out: Path) -> None:
        self.unlabel(dataset, "a", slice(0, 40))
        (dataset / "msks" / "unknown.txt").unlink()
        with pytest.raises(UserError, match=r"a\.tif: rows 0 to 95 hold the values 0, 127, 255"):
            make(dataset, out)
