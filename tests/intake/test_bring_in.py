"""Making a dataset of a user's files: copies, names, remarks and errors."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from brought import taken
from intake_files import NAMES, SIZE, place_of, write_footprints, write_pairs
from raster_files import name_bands
from rasterio.transform import Affine
from tiers import cases
from tiny_dataset import CRS, make, tile_pixels, write_raster
from unwritable import full_disk

from roofseg.core.errors import UserError
from roofseg.intake import inspect
from roofseg.intake.division import Division
from roofseg.intake.inspect import inspect_dataset
from roofseg.recipe.split import read_nudges, read_split
from roofseg.tiles.rasters import open_raster


def read(path: Path) -> np.ndarray:
    with open_raster(path) as source:
        return source.read().transpose(1, 2, 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "oslo"


class TestTaken:
    def test_8_bit_tiles_are_copied_to_the_byte(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path / "mine")
        before = contents(tmp_path / "mine")
        report, said = taken(images, masks, out)
        for name in NAMES:
            for kind, source in (("imgs", images), ("msks", masks)):
                copy = out / kind / f"{name}.tif"
                assert copy.read_bytes() == (source / f"{name}.tif").read_bytes()
                # A link would be one file with DVC's cache, which it may make read-only.
                assert copy.stat().st_nlink == 1
        assert said == []
        assert contents(tmp_path / "mine") == before
        assert read_nudges(out) == {}
        assert {tile.name: tile.split for tile in report.tiles} == read_split(out)
        assert sorted(read_split(out).values()) == [
            "test",
            "train",
            "train",
            "train",
            "train",
            "val",
        ]

    def test_a_new_dataset_passes_the_check_and_makes_patches(
        self, tmp_path: Path, out: Path
    ) -> None:
        images, masks = write_pairs(tmp_path, change=lambda image: image.astype(np.uint16) * 5)
        report, _ = taken(images, masks, out)
        checked = inspect_dataset(out)
        assert (checked.problems, checked.warnings) == ((), ())
        assert sorted(checked.tiles, key=lambda tile: tile.name) == list(report.tiles)
        assert make(out, tmp_path / "patches") == []

    def test_the_source_files_are_recorded_without_folders(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(
            tmp_path, suffixes=(".tif", ".png"), change=lambda image: image.astype(np.float32)
        )
        _, said = taken(images, masks, out, gsd=0.3, division=Division(seed=7))
        text = (out / "intake.json").read_text()
        assert str(tmp_path) not in text
        record = json.loads(text)
        assert record["gsd"] == 0.3
        assert record["scale"]["percentiles"] == [2, 98]
        low, high = record["scale"]["low"], record["scale"]["high"]
        assert record["split"] == {"seed": 7, "val": 1 / 6, "test": 1 / 6, "square": None}
        assert record["tiles"]["a"] == {
            "image": "a.tif",
            "mask": "a.png",
            "changes": ["float32, scaled to 8 bits"],
        }
        assert said[0] == "float32, scaled to 8 bits: a, b, c, d, e, f"
        assert f"{low} became 0 and {high} 255: percentiles 2 and 98 of all tiles" in said[1]
        assert said[1].endswith(f"--scale {low} {high}")

    def test_bands_are_put_in_order_and_the_change_is_recorded(
        self, tmp_path: Path, out: Path
    ) -> None:
        images, masks = write_pairs(
            tmp_path, change=lambda image: image[:, :, ::-1], photometric="minisblack"
        )
        for path in images.iterdir():
            name_bands(path, "blue", "green", "red")
        _, said = taken(images, masks, out)
        for index, name in enumerate(NAMES):
            pixels = read(out / "imgs" / f"{name}.tif")
            np.testing.assert_array_equal(pixels, tile_pixels(index, SIZE)[0])
        change = "3 bands of uint8: bands 3, 2, 1 are read as red, green, blue (by colour "
        (recorded,) = json.loads((out / "intake.json").read_text())["tiles"]["a"]["changes"]
        assert recorded.startswith(change)
        assert said == [f"{recorded}: a, b, c, d, e, f"]

    def test_one_scale_for_all_tiles(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path, change=lambda image: image.astype(np.uint16) * 20)
        taken(images, masks, out)
        scale = json.loads((out / "intake.json").read_text())["scale"]
        for name in NAMES:
            wide = read(images / f"{name}.tif").astype(float)
            scaled = (wide - scale["low"]) * 255 / (scale["high"] - scale["low"])
            expected = np.rint(scaled.clip(0, 255))
            np.testing.assert_array_equal(read(out / "imgs" / f"{name}.tif"), expected)

    def test_plain_tiles_keep_their_format_and_side_files(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path, suffixes=(".jpg", ".png"), georeferenced=False)
        (images / "a.jgw").write_text("0.3\n0\n0\n-0.3\n1000\n2000\n")
        write_raster(images / "b.jpg", tile_pixels(1, SIZE)[0], crs=CRS, transform=place_of(1))
        assert (images / "b.jpg.aux.xml").is_file()
        report, _ = taken(images, masks, out)
        grids = {tile.name: tile.grid for tile in report.tiles if tile.grid}
        assert grids["a"].transform == Affine(0.3, 0, 999.85, 0, -0.3, 2000.15)
        assert (grids["b"].gsd, grids["c"].gsd) == (0.3, None)
        assert sorted(path.name for path in (out / "imgs").iterdir())[:5] == [
            "a.jgw",
            "a.jpg",
            "b.jpg",
            "b.jpg.aux.xml",
            "c.jpg",
        ]

    def test_the_suffix_follows_the_format(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path, suffixes=(".png", ".tif"), georeferenced=False)
        for path in images.iterdir():
            path.rename(path.with_suffix(".tif"))
        taken(images, masks, out)
        assert {path.suffix for path in (out / "imgs").iterdir()} == {".png"}

    def test_masks_in_other_formats_become_geotiff(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path)
        (tmp_path / "virtual").mkdir()
        for path in masks.iterdir():
            rasterio.shutil.copy(path, tmp_path / "virtual" / f"{path.stem}.vrt", driver="VRT")
        taken(images, tmp_path / "virtual", out)
        for name in NAMES:
            np.testing.assert_array_equal(
                read(out / "msks" / f"{name}.tif"), read(masks / f"{name}.tif")
            )

    @pytest.mark.parametrize("name", ["roofs.gpkg", "roofs.geojson", "roofs.shp", "roofs.parquet"])
    def test_footprints_are_rasterized(self, tmp_path: Path, out: Path, name: str) -> None:
        images, masks = write_pairs(tmp_path)
        taken(images, write_footprints(tmp_path / name), out)
        for tile in NAMES:
            np.testing.assert_array_equal(
                read(out / "msks" / f"{tile}.tif"), read(masks / f"{tile}.tif")
            )
        record = json.loads((out / "intake.json").read_text())
        assert record["tiles"]["a"]["mask"] == name

    def test_a_description_of_a_mask_is_no_label(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path)
        (masks / "a.json").write_text('{"type": "Feature", "stac_version": "1.0.0"}')
        taken(images, masks, out)
        assert json.loads((out / "intake.json").read_text())["tiles"]["a"]["mask"] == "a.tif"

    @pytest.mark.parametrize("kind", ["imagery", "labels"])
    def test_hidden_files_are_no_footprints(self, tmp_path: Path, out: Path, kind: str) -> None:
        """macOS writes such files beside others."""
        images, masks = write_pairs(tmp_path)
        (tmp_path / kind / "._a.geojson").write_bytes(b"\0\5\26\7")
        (tmp_path / kind / "._zz.geojson").write_bytes(b"\0\5\26\7")
        taken(images, masks, out)
        (masks / "a.tif").unlink()
        with pytest.raises(UserError, match=r"no mask for a; .*leave those images out\.$"):
            taken(images, masks, out)

    @pytest.mark.parametrize(
        "name",
        cases(
            ["labels.geojson", "labels.gpkg", "labels.shp"], whole=["labels.geojson", "labels.shp"]
        ),
    )
    def test_footprints_may_lie_among_the_images(
        self, tmp_path: Path, out: Path, name: str
    ) -> None:
        images, masks = write_pairs(tmp_path)
        roofs = write_footprints(images / name)
        says = rf"If {roofs} holds the labels, say --msks {roofs} \(make: MSKS={roofs}\)\.$"
        for named in (images, tmp_path):  # as somebody would name them who does not know
            with pytest.raises(UserError, match=says):
                taken(images, named, out)
        (report, _) = taken(images, roofs, out)
        assert [tile.name for tile in report.tiles] == list(NAMES)
        taken(images, masks, tmp_path / "data" / "other")  # masks are there: nothing is said

    def test_repaired_footprints_are_reported(self, tmp_path: Path, out: Path) -> None:
        images, _ = write_pairs(tmp_path)
        roofs = geopandas.read_file(write_footprints(tmp_path / "roofs.gpkg")).to_crs(CRS)
        x, y = place_of(0) @ (10, 10)
        roofs.loc[len(roofs)] = [shapely.Polygon([(x, y), (x + 5, y - 5), (x + 5, y), (x, y - 5)])]
        roofs.to_file(tmp_path / "two.gpkg", layer="roofs")
        roofs.to_file(tmp_path / "two.gpkg", layer="older")
        with pytest.raises(UserError, match=r"two\.gpkg: has several layers: 'roofs', 'older'"):
            taken(images, tmp_path / "two.gpkg", out)
        _, said = taken(images, tmp_path / "two.gpkg", out, layer="roofs")
        assert said == ["invalid footprints that were repaired: 1"]

    def test_footprints_that_may_lie_off_need_consent(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path)
        roofs = geopandas.read_file(write_footprints(tmp_path / "roofs.gpkg"))
        roofs.to_crs("EPSG:4267").to_file(tmp_path / "nad27.gpkg")
        message = r"footprints may be off by \d+ m .*, because PROJ lacks the grid us_noaa_.*\.tif"
        with pytest.raises(UserError, match=rf"nad27\.gpkg: .*{message}.* --allow-ballpark"):
            taken(images, tmp_path / "nad27.gpkg", out)
        assert not out.exists()
        _, said = taken(images, tmp_path / "nad27.gpkg", out, allow_ballpark=True)
        assert len(said) == 1
        assert re.search(message, said[0])
        np.testing.assert_array_equal(read(out / "msks" / "a.tif"), read(masks / "a.tif"))

    def test_tiles_that_no_footprint_touches_are_named(self, tmp_path: Path, out: Path) -> None:
        images, _ = write_pairs(tmp_path)
        _, said = taken(images, write_footprints(tmp_path / "roofs.gpkg", NAMES[:-2]), out)
        assert said == [
            "no footprint on e, f: leave out tiles that nobody has mapped, or say with "
            "--areas where the footprints are complete"
        ]

    def test_tiles_are_named_after_files(self, tmp_path: Path, out: Path) -> None:
        names = ("north 1", "Ålesund (øst)", "c;d", "x.v2", "-e", "g")
        images, masks = write_pairs(tmp_path, names)
        _, said = taken(images, masks, out)
        expected = {"north_1", "Ålesund_øst", "c_d", "x.v2", "e", "g"}
        assert set(read_split(out)) == expected
        assert {path.stem for path in (out / "imgs").iterdir()} == expected
        assert said == [
            "tiles named differently from their files: '-e' is e, 'c;d' is c_d, 'north 1' is "
            "north_1, 'Ålesund (øst)' is Ålesund_øst"
        ]

    def test_the_limit_of_expansion_can_be_set(
        self, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inspect, "BOMB_BYTES", 1000)
        # A function that did not get the limit would use its default.
        monkeypatch.setattr(inspect.open_bounded.__wrapped__, "__defaults__", (0.01,))
        monkeypatch.setitem(inspect.inspect_tile.__kwdefaults__, "max_expansion", 0.01)
        images, masks = write_pairs(tmp_path)
        with pytest.raises(UserError, match=r"^6 problems:\n .*a\.tif: .* GiB of pixels"):
            taken(images, masks, out, max_expansion=0.01)
        taken(images, masks, out, max_expansion=1000)

    def test_links_are_followed(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path)
        (images / "a.tif").rename(tmp_path / "elsewhere.tif")
        (images / "a.tif").symlink_to(tmp_path / "elsewhere.tif")
        taken(images, masks, out)
        assert not (out / "imgs" / "a.tif").is_symlink()

    def test_neighbours_share_a_split(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path)
        for kind in (images, masks):
            with rasterio.open(kind / "b.tif", "r+") as target:
                target.transform = place_of(0) @ Affine.translation(SIZE, 0)
        for seed in range(4):
            taken(images, masks, out.with_name(f"oslo{seed}"), division=Division(seed=seed))
            split = read_split(out.with_name(f"oslo{seed}"))
            assert split["a"] == split["b"]

    def test_a_split_given_by_the_user(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path, ("A\u030a 1", "b", "c", "d"))
        mine = tmp_path / "mine.csv"
        mine.write_text("tile,split\nc,test\n\u00c5 1,train\nb,val\n", encoding="utf-8")
        report, _ = taken(images, masks, out, division=Division(file=mine))
        assert read_split(out) == {"c": "test", "\u00c5_1": "train", "b": "val"}
        assert report.warnings == ("split.csv does not list d, which the pipeline leaves out",)
        record = json.loads((out / "intake.json").read_text())
        assert record["split"] == {"file": "mine.csv"}


class TestRefused:
    """Every fault is an error, and its message names the user's own files."""

    @pytest.mark.parametrize(
        ("spoil", "says"),
        [
            (lambda i, m: (m / "b.tif").unlink(), "{m}: no mask for b; expected the same names"),
            (
                lambda i, m: [path.rename(m / f"{path.stem}_mask.tif") for path in m.iterdir()],
                "{m}: no mask for a, b, c, d, e, f, but masks without an image: a_mask, b_mask",
            ),
            (lambda i, m: (i / "a.png").touch(), "{i}/a.tif: a.png in the same folder"),
            (
                lambda i, m: [(i / name).touch() for name in ("a b.tif", "a_b.tif")],
                "{i}/a_b.tif: this file and a b.tif would both become the tile a_b (apart",
            ),
            (
                lambda i, m: [(i / name).touch() for name in ("A b.tif", "a_B.tif")],
                "{i}/a_B.tif: this file and A b.tif would both become the tile a_B (apart",
            ),
            (lambda i, m: (i / "!!.tif").touch(), "{i}/!!.tif: its name has no letter"),
            (lambda i, m: (i / "a.tif").write_text("II*"), "{i}/a.tif: cannot be read"),
            (lambda i, m: (i / "a.tif").write_bytes(b""), "{i}/a.tif: cannot be read"),
            (
                lambda i, m: write_raster(i / "a.tif", tile_pixels(0, SIZE)[0].astype(np.int16)),
                "{i}: has rasters of different types (a.tif has int16, f.tif has uint8)",
            ),
            (
                lambda i, m: write_raster(m / "a.tif", tile_pixels(0, SIZE)[0]),
                "{m}/a.tif: 3 bands of uint8; expected a mask with one band",
            ),
            (
                lambda i, m: write_raster(m / "a.tif", tile_pixels(0, SIZE)[0][:, :, 0]),
                "{m}/a.tif: rows 0 to 95 hold the values 60",
            ),
            (
                lambda i, m: write_raster(m / "a.tif", 1 - tile_pixels(0, SIZE)[1]),
                "{m}/a.tif: 93.8% of it is building; expected 90% at most",
            ),
            (
                lambda i, m: write_raster(m / "a.tif", tile_pixels(0, SIZE)[1][1:]),
                "{m}/a.tif: 96 x 95 px, but its image {i}/a.tif has 96 x 96 px",
            ),
            (
                lambda i, m: write_raster(
                    m / "a.tif", tile_pixels(0, SIZE)[1], crs="EPSG:32633", transform=place_of(0)
                ),
                "{m}/a.tif: its CRS is EPSG:32633, but its image {i}/a.tif has EPSG:32614",
            ),
            (
                lambda i, m: write_raster(
                    m / "a.tif",
                    tile_pixels(0, SIZE)[1],
                    crs=CRS,
                    transform=place_of(0) @ Affine.rotation(5),
                ),
                "px away from its image {i}/a.tif",
            ),
            (
                lambda i, m: [write_raster(p, np.zeros((96, 96), np.uint8)) for p in m.iterdir()],
                "{m}: no building in any mask",
            ),
            (lambda i, m: [path.unlink() for path in i.iterdir()], "{i}: holds no raster"),
            (lambda i, m: [path.unlink() for path in list(i.iterdir())[2:]], "2 tiles: expected"),
        ],
        ids=[
            "a mask missing",
            "masks named otherwise",
            "two images for a tile",
            "names that become one",
            "names that become one, but for case",
            "no name left",
            "truncated",
            "empty",
            "mixed types",
            "mask of three bands",
            "soft mask",
            "inverted mask",
            "sizes that differ",
            "CRS that differ",
            "rotated",
            "no building",
            "no imagery",
            "two tiles",
        ],
    )
    def test_each_problem_is_named(
        self, tmp_path: Path, out: Path, spoil: Callable[[Path, Path], object], says: str
    ) -> None:
        images, masks = write_pairs(tmp_path)
        spoil(images, masks)
        says = says.replace("{i}", str(images)).replace("{m}", str(masks))
        with pytest.raises(UserError, match=re.escape(says)) as caught:
            taken(images, masks, out)
        assert str(out) not in str(caught.value)

    def test_all_problems_are_named_at_once(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path)
        (images / "a.tif").write_bytes(b"")
        write_raster(images / "b.tif", tile_pixels(0, SIZE)[0][:, :, 0])
        with pytest.raises(UserError, match=r"^2 problems:\n.*a\.tif: .*\n.*b\.tif: 1 band"):
            taken(images, masks, out)
        assert not out.exists()  # headers are read before anything is copied

    @pytest.mark.parametrize("kind", ["imagery", "labels", "roofs.gpkg", "mine.csv"])
    def test_missing_files_and_folders(self, tmp_path: Path, out: Path, kind: str) -> None:
        images, masks = write_pairs(tmp_path)
        mine = tmp_path / "mine.csv" if kind == "mine.csv" else None
        if kind in ("imagery", "labels"):
            (tmp_path / kind).rename(tmp_path / "moved")
        if kind == "roofs.gpkg":
            masks = tmp_path / kind
        with pytest.raises(UserError, match=f"{tmp_path}/{kind}: no such f") as caught:
            taken(images, masks, out, division=Division(file=mine))
        assert "\n" not in str(caught.value)  # no other problem follows from this one

    def test_missing_files_are_named_with_their_options(self, tmp_path: Path, out: Path) -> None:
        says = "2 problems:\n  --imgs i: no such file or folder.*\n  --msks m.gpkg: no such file"
        with pytest.raises(UserError, match=says):
            taken(Path("i"), Path("m.gpkg"), out)

    @pytest.mark.parametrize("kind", ["imagery", "labels", "roofs.gpkg", "mine.csv"])
    def test_what_is_no_regular_file_is_refused(self, tmp_path: Path, out: Path, kind: str) -> None:
        """Reading a pipe would wait until somebody writes to it."""
        images, masks = write_pairs(tmp_path / "mine")
        pipe = tmp_path / kind
        os.mkfifo(pipe)
        with pytest.raises(UserError, match=rf"{kind}: .*not a regular file|is a pipe, a device"):
            taken(
                pipe if kind == "imagery" else images,
                pipe if kind in ("labels", "roofs.gpkg") else masks,
                out,
                division=Division(file=pipe if kind == "mine.csv" else None),
            )

    @pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.gpkg", "a.shp", "a.parquet"])
    def test_a_pipe_among_labels_is_refused(self, tmp_path: Path, out: Path, name: str) -> None:
        images, masks = write_pairs(tmp_path)
        (masks / "a.tif").unlink()
        os.mkfifo(masks / name)
        with pytest.raises(UserError, match=rf"labels/{name}: not a regular file|no mask for a"):
            taken(images, masks, out)

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("a.geojson", "a.json"),
            ("a.gpkg", "a.geojson"),
            ("a.shp", "a.fgb"),
            ("a.parquet", "A.json"),
            ("a.tif", "a.geojson"),
            ("a.tif", "A.fgb"),
        ],
    )
    def test_two_labels_for_an_image_are_refused(
        self, tmp_path: Path, out: Path, first: str, second: str
    ) -> None:
        images, masks = write_pairs(tmp_path)
        if first != "a.tif":
            (masks / "a.tif").unlink()
            write_footprints(masks / first)
        shutil.copy(write_footprints(tmp_path / "a.geojson"), masks / second)
        with pytest.raises(UserError, match=r"both become the tile [aA]") as error:
            taken(images, masks, out)
        assert {first, second} <= set(re.findall(r"\w+\.\w+", str(error.value)))

    @pytest.mark.parametrize("kind", ["images", "masks", "split"])
    def test_a_line_break_in_a_path_is_refused(self, tmp_path: Path, out: Path, kind: str) -> None:
        images, masks = write_pairs(tmp_path / "mine")
        path = tmp_path / "two\nlines"
        path.mkdir()
        with pytest.raises(UserError, match=r"two\\nlines: its name has a line break") as caught:
            taken(
                path if kind == "images" else images,
                path if kind == "masks" else masks,
                out,
                division=Division(file=path if kind == "split" else None),
            )
        assert "\n" not in str(caught.value)

    def test_a_layer_of_masks(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path)
        with pytest.raises(UserError, match=f"^--layer roofs: .* --msks {masks} holds masks"):
            taken(images, masks, out, layer="roofs")

    def test_one_file_for_many_images(self, tmp_path: Path, out: Path) -> None:
        images, _ = write_pairs(tmp_path)
        (tmp_path / "roofs.kml").touch()
        says = r"roofs\.kml: one file for 6 images; expected a folder of masks, or .* \.gpkg"
        with pytest.raises(UserError, match=says):
            taken(images, tmp_path / "roofs.kml", out)

    def test_footprints_of_other_names_and_footprints_as_imagery(
        self, tmp_path: Path, out: Path
    ) -> None:
        images, _ = write_pairs(tmp_path)
        for name in NAMES:
            write_footprints(tmp_path / "roofs" / f"{name} 1.geojson", (name,))
        says = r"no mask for a.* If \S+/roofs/a 1\.geojson\S* and 5 more vector files .*ogrmerge"
        with pytest.raises(UserError, match=says):
            taken(images, tmp_path / "roofs", out)
        with pytest.raises(UserError, match=r"^--imgs \S+a 1\.geojson: is a vector file; .*--msks"):
            taken(tmp_path / "roofs" / "a 1.geojson", images, out)

    def test_footprints_on_other_ground(self, tmp_path: Path, out: Path) -> None:
        images, _ = write_pairs(tmp_path)
        roofs = write_footprints(tmp_path / "roofs.gpkg")
        there = geopandas.read_file(roofs).translate(xoff=20)
        there.to_file(tmp_path / "there.gpkg")
        with pytest.raises(UserError, match=r"there\.gpkg: no building in any mask. Do footprints"):
            taken(images, tmp_path / "there.gpkg", out)

    def test_footprints_for_tiles_without_georeference(self, tmp_path: Path, out: Path) -> None:
        images, _ = write_pairs(tmp_path, suffixes=(".png", ".png"), georeferenced=False)
        roofs = write_footprints(tmp_path / "roofs.gpkg")
        with pytest.raises(UserError, match=r"imagery/a\.png: has no CRS and no transform"):
            taken(images, roofs, out)

    def test_files_that_are_not_footprints(self, tmp_path: Path, out: Path) -> None:
        images, _ = write_pairs(tmp_path)
        (tmp_path / "roofs.geojson").write_text('{"type": "FeatureColl')
        with pytest.raises(UserError, match=r"roofs\.geojson: cannot be read"):
            taken(images, tmp_path / "roofs.geojson", out)

    def test_a_stated_gsd_that_contradicts_the_tiles(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path)
        with pytest.raises(
            UserError, match=r"--gsd: found 1 m per pixel, but the georeference of a says 0"
        ):
            taken(images, masks, out, gsd=1.0)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"division": Division(seed=-1)}, "--seed: found -1; expected 0 or more"),
            ({"division": Division(val=0.9)}, "--val 0.9 and --test 0.166667: expected two shares"),
        ],
    )
    def test_numbers_out_of_range(
        self, tmp_path: Path, out: Path, options: dict[str, Any], says: str
    ) -> None:
        images, masks = write_pairs(tmp_path)
        with pytest.raises(UserError, match=re.escape(says)):
            taken(images, masks, out, **options)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (
                "tile,split\na,train\nb,val\nx,test\n",
                "mine.csv: lists x, but there is no such image",
            ),
            ("tile,split\na,train\nb,val\n", "mine.csv: no tile is in the split test"),
            ("tile,set\na,train\n", "mine.csv: its first line lacks split"),
            ("tile,split\na,train\na,val\n", "mine.csv, line 3: tile a is listed in train and in"),
            (
                "tile,split\nx,train\na b,val\na_b,test\n",
                "mine.csv: lists a b and a_b, which become the same tile. Remove one of the lines.",
            ),
        ],
    )
    def test_a_split_that_does_not_fit(
        self, tmp_path: Path, out: Path, text: str, says: str
    ) -> None:
        images, masks = write_pairs(tmp_path)
        (tmp_path / "mine.csv").write_text(text)
        with pytest.raises(UserError, match=re.escape(f"{tmp_path}/{says}")):
            taken(images, masks, out, division=Division(file=tmp_path / "mine.csv"))

    def test_a_full_disk(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path)
        says = r"^oslo/imgs/a\.tif: File too large\. Raise the limit"
        with full_disk(20_000), pytest.raises(UserError, match=says):
            taken(images, masks, out)

    def test_damage_in_pixels_names_the_users_file(self, tmp_path: Path, out: Path) -> None:
        images, masks = write_pairs(tmp_path, compress="deflate")
        data = (images / "c.tif").read_bytes()
        middle = len(data) // 2
        (images / "c.tif").write_bytes(data[:middle] + bytes(400) + data[middle + 400 :])
        with pytest.raises(UserError, match=rf"^{re.escape(str(images))}/c\.tif: cannot be read"):
            taken(images, masks, out)
