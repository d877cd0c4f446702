from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from graph import ROOT
from onnx_files import write_model as write_onnx
from processes import started, wait_until
from ranges import served
from raster_files import write_container, write_huge_raster
from small_model import write_model
from tiny_dataset import CRS, TRANSFORM, tile_pixels, write_raster
from unwritable import nobody, public_folder

from roofseg import cli

pytestmark = pytest.mark.usefixtures("one_thread", "signal_handlers")

GEO = {"crs": CRS, "transform": TRANSFORM}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b")):
        write_raster(tmp_path / "tiles" / f"{name}.tif", tile_pixels(seed, 90)[0], **GEO)
    return tmp_path / "tiles"


def roofseg(*arguments: object) -> int:
    """The exit status of `roofseg predict` with these arguments, on the CPU."""
    try:
        cli.main(["predict", *map(str, arguments), "--device", "cpu", "--precision", "32-true"])
    except SystemExit as stop:
        return int(str(stop.code))
    return 0


def read(path: Path) -> npt.NDArray[Any]:
    with rasterio.open(path) as source:
        return source.read(1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class TestPredict:
    def test_a_folder_becomes_masks(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "new" / "maps"
        assert roofseg("--model", model, tiles, "--out", out) == 0
        assert names(out) == ["a.tif", "b.tif"]
        assert set(np.unique(read(out / "a.tif"))) <= {0, 1}
        printed = capsys.readouterr()
        assert printed.err == ""
        assert [line.split(" MP in ")[0] for line in printed.out.splitlines()] == [
            f"{out / 'a.tif'}: 0.0",
            f"{out / 'b.tif'}: 0.0",
        ]

    def test_probabilities_and_masks_agree(self, model: Path, tiles: Path, tmp_path: Path) -> None:
        common = ("--model", model, tiles / "a.tif", "--threshold", 0.45)
        assert roofseg(*common, "--out", tmp_path / "p", "--probability") == 0
        assert roofseg(*common, "--out", tmp_path / "m") == 0
        probability = read(tmp_path / "p" / "a.tif")
        np.testing.assert_array_equal(read(tmp_path / "m" / "a.tif"), probability >= 0.45)

    @pytest.mark.whole
    def test_every_option_reaches_the_result(
        self, model: Path, tiles: Path, tmp_path: Path
    ) -> None:
        common = ("--model", model, tiles / "a.tif", "--probability")
        results = {}
        for option in ((), ("--overlap", 0.5), ("--tta",), ("--batch-size", 1)):
            out = tmp_path / f"maps{len(results)}"
            assert roofseg(*common, *option, "--out", out) == 0
            results[option[0] if option else ""] = read(out / "a.tif")
        plain = results.pop("")
        np.testing.assert_allclose(results.pop("--batch-size"), plain, atol=1e-5)
        for found in results.values():
            assert np.abs(found - plain).max() > 1e-4

    def test_two_models_are_averaged(self, model: Path, tiles: Path, tmp_path: Path) -> None:
        other = write_model(tmp_path / "other", seed=1)
        options = ("--probability", tiles / "a.tif", "--out")
        each = []
        for folder in (model, other):
            assert roofseg("--model", folder, *options, tmp_path / folder.name) == 0
            each.append(read(tmp_path / folder.name / "a.tif"))
        both = ("--model", model, "--model", other, "--disagreement", "--vector", "gpkg")
        assert roofseg(*both, *options, tmp_path / "both") == 0
        assert names(tmp_path / "both") == ["a.disagreement.tif", "a.gpkg", "a.tif"]
        np.testing.assert_allclose(read(tmp_path / "both/a.tif"), np.mean(each, axis=0), atol=1e-6)
        spread = read(tmp_path / "both/a.disagreement.tif")
        assert spread.dtype == np.float32
        assert 0 < spread.max() <= 0.5
        # A mean over windows of distances is at least the distance of the means.
        assert (spread >= np.std(each, axis=0) - 1e-6).all()
        with rasterio.open(tmp_path / "both/a.disagreement.tif") as source:
            assert source.tags()["ROOFSEG_ATTEMPT"] in ("small, other", "other, small")
            assert source.descriptions == ("standard deviation of the probability between models",)
        assert roofseg(*both[:4], "--overwrite", *options, tmp_path / "both") == 0
        assert names(tmp_path / "both") == ["a.gpkg", "a.tif"]  # a map may have other footprints
        assert roofseg(*both, "--overwrite", *options, tmp_path / "both") == 0
        (tmp_path / "both/a.disagreement.tif").unlink()
        assert roofseg(*both, *options, tmp_path / "both") == 0
        np.testing.assert_array_equal(read(tmp_path / "both/a.disagreement.tif"), spread)

    def test_names_with_spaces_and_other_letters(self, model: Path, tmp_path: Path) -> None:
        source = tmp_path / "in put" / "Ærø 屋根.v2.tif"
        write_raster(source, tile_pixels(0, 40)[0], **GEO)
        assert roofseg("--model", model, source, "--out", tmp_path / "maps å") == 0
        assert names(tmp_path / "maps å") == ["Ærø 屋根.v2.tif"]

    def test_an_address(self, model: Path, tiles: Path, tmp_path: Path) -> None:
        with served(tiles) as (address, _):
            for _ in range(2):  # the second time it is finished
                assert roofseg("--model", model, f"{address}/a.tif", "--out", tmp_path / "far") == 0
        assert roofseg("--model", model, tiles / "a.tif", "--out", tmp_path / "near") == 0
        far, near = (read(tmp_path / name / "a.tif") for name in ("far", "near"))
        np.testing.assert_array_equal(far, near)

    def test_rasters_of_one_file(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The names in the message can be given instead, and each gets an output of its own."""
        path, out = tmp_path / "city.gpkg", tmp_path / "maps"
        write_container(path, {name: tile_pixels(0, 40)[0] for name in ("old", "new")})
        assert roofseg("--model", model, path, "--out", out) == 2
        message = capsys.readouterr().err
        inputs = message.rpartition("INPUT: ")[2].rstrip(".\n").split(", ")
        assert roofseg("--model", model, *inputs, "--out", out) == 0
        assert names(out) == ["city_new.tif", "city_old.tif"]
        with rasterio.open(out / "city_new.tif") as result:
            assert result.tags()["ROOFSEG_SOURCE"] == "city.gpkg:new"

    def test_notes_go_to_stderr(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        image = tile_pixels(0, 40)[0]
        write_raster(tmp_path / "t.tif", np.dstack([image, image[:, :, :2]]))
        assert roofseg("--model", model, tmp_path / "t.tif", "--out", tmp_path / "maps") == 0
        printed = capsys.readouterr().err
        assert f"{tmp_path / 't.tif'}: 5 bands of uint8: bands 1, 2, 3 are read as" in printed
        assert "its GSD is unknown; taken as the 0.3 m per pixel trained on" in printed

    def test_footprints(self, model: Path, tiles: Path, tmp_path: Path) -> None:
        out = tmp_path / "maps"
        options = ("--vector", "geojson", "--min-area", 1, "--simplify", 0.5)
        assert roofseg("--model", model, tiles / "a.tif", "--out", out, *options) == 0
        assert names(out) == ["a.geojson", "a.tif"]


class TestResume:
    def test_finished_outputs_are_skipped(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "maps"
        assert roofseg("--model", model, tiles / "a.tif", "--out", out) == 0
        made = (out / "a.tif").stat().st_mtime_ns
        capsys.readouterr()
        assert roofseg("--model", model, tiles, "--out", out) == 0
        assert f"{out / 'a.tif'}: already finished, skipped\n" in capsys.readouterr().out
        assert (out / "a.tif").stat().st_mtime_ns == made
        assert names(out) == ["a.tif", "b.tif"]

    def test_changed_inputs_are_predicted_again_without_overwrite(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "maps"
        assert roofseg("--model", model, tiles, "--out", out) == 0
        other = tmp_path / "a.tif"
        write_raster(other, tile_pixels(7, 90)[0], **GEO)
        os.utime(other, (1e9, 1e9))
        shutil.copy2(other, tiles / "a.tif")
        assert roofseg("--model", model, other, "--out", tmp_path / "right") == 0
        capsys.readouterr()
        assert roofseg("--model", model, tiles, "--out", out) == 0
        assert [line.split(": ")[1][:7] for line in capsys.readouterr().out.splitlines()] == [
            "already",
            "0.0 MP ",
        ]
        np.testing.assert_array_equal(read(out / "a.tif"), read(tmp_path / "right" / "a.tif"))

    def test_outputs_of_another_model_are_kept_without_overwrite(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, other = tmp_path / "maps", write_model(tmp_path / "other", seed=1)
        assert roofseg("--model", model, tiles / "a.tif", "--out", out) == 0
        before = (out / "a.tif").read_bytes()
        assert roofseg("--model", other, tiles, "--out", out) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {out / 'a.tif'}: already exists, with ROOFSEG_ATT")
        assert names(out) == ["a.tif"]
        assert (out / "a.tif").read_bytes() == before
        assert roofseg("--model", other, tiles, "--out", out, "--overwrite") == 0
        assert (out / "a.tif").read_bytes() != before

    def test_leftovers_of_a_killed_run_are_removed(
        self, model: Path, tiles: Path, tmp_path: Path
    ) -> None:
        """Beside what is made now, and beside what was finished before."""
        out = tmp_path / "maps"
        assert roofseg("--model", model, tiles / "a.tif", "--out", out) == 0
        for name in (".a.tif.k1ll3d__", ".b.tif.k1ll3d__", ".c.tif.an0ther_"):
            (out / name).mkdir()
            (out / name / "uint8.canvas").touch()
        assert roofseg("--model", model, tiles, "--out", out) == 0
        assert names(out) == [".c.tif.an0ther_", "a.tif", "b.tif"]

    @pytest.mark.whole
    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
    )
    def test_a_stopped_run_leaves_no_partial_output_and_continues(
        self, model: Path, tmp_path: Path, number: int, status: int
    ) -> None:
        write_raster(tmp_path / "in" / "a.tif", tile_pixels(0, 40)[0], **GEO)
        write_huge_raster(tmp_path / "in" / "b.tif")
        out = tmp_path / "maps"
        command = [sys.executable, "-m", "roofseg", "predict", "--model", model, tmp_path / "in"]
        command += ["--out", out, "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with started(command, env=environment, **pipes) as running:
            # until b.tif is being made
            wait_until(lambda: list(out.glob(".b.tif*")), lambda: running.poll() is None)
            running.send_signal(number)
            printed, said = running.communicate()
        assert running.returncode == status
        stopped = f"error: stopped by {signal.Signals(number).name}; run the same command again"
        assert stopped in said
        assert "Traceback" not in said
        assert names(out) == ["a.tif"]
        assert printed.startswith(f"{out / 'a.tif'}: ")


class TestMistakes:
    """Exit status 2, a message that names what is wrong, and nothing left behind."""

    def refused(
        self, capsys: pytest.CaptureFixture[str], out: Path, message: str, *arguments: object
    ) -> None:
        capsys.readouterr()
        before = names(out)
        if "--out" not in arguments:
            arguments = (*arguments, "--out", out)
        assert roofseg(*arguments) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
        assert names(out) == before

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--threshold", "1.5"), "--threshold: found '1.5', expected a number from 1e-06 to 1"),
            (("--threshold", "half"), "--threshold: found 'half'"),
            (("--overlap", "0.6"), "--overlap: found '0.6', expected a number from 0 to 0.5"),
            (("--overlap", "nan"), "--overlap: found 'nan'"),
            (("--gsd", "0"), "--gsd: found '0', expected a number of at least"),
            (("--gsd", "-0.3"), "--gsd: "),
            (("--gsd", "inf"), "--gsd: found 'inf', expected a number of at least"),
            (("--batch-size", "0"), "--batch-size: found '0', expected a positive whole number"),
            (("--batch-size", "2.5"), "--batch-size: found '2.5'"),
            (("--min-area", "-1", "--vector", "gpkg"), "--min-area: "),
            (("--min-area", "5"), "--min-area: needs --vector gpkg|geojson|parq"),
            (("--simplify", "5"), "--simplify: needs --vector"),
            (("--regularise",), "--regularise: needs --vector"),
            (("--scale", "255", "0"), "--scale 255 0: expected LOW < HIGH"),
            (("--vector", "shp"), "--vector: invalid choice: 'shp'"),
            (("--precision", "8"), "--precision: invalid choice"),
            (("--tresh", "0.5"), "unrecognized arguments: --tresh"),
            (("--out", "s3://bucket/maps"), "--out: found 's3://bucket/maps', expected a path on"),
            (("--out", ""), "--out: found '', expected a path on this machine"),
        ],
    )
    def test_wrong_arguments(
        self,
        model: Path,
        tiles: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        arguments: tuple[str, ...],
        message: str,
    ) -> None:
        maps = tmp_path / "maps"
        self.refused(capsys, maps, message, "--model", model, tiles, "--out", maps, *arguments)

    def test_wrong_names(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        common = ("--model", model)
        maps = tmp_path / "maps"
        other = tmp_path / "other" / "a.png"
        write_raster(other, tile_pixels(0, 40)[0])
        message = (
            f"error: {other}: its output {maps / 'a.tif'} is also the output of {tiles / 'a.tif'}"
        )
        self.refused(capsys, maps, message, *common, tiles, other)
        self.refused(
            capsys, maps, f"is also the output of {tiles / 'a.tif'}", *common, tiles, tiles
        )
        message = (
            f"{tiles / 'a.tif'}: the output {tiles / 'a.tif'} would replace this input. Choose"
        )
        self.refused(capsys, tiles, message, *common, tiles / "a.tif")
        self.refused(capsys, tiles, message, *common, tiles / "a.tif", "--overwrite")
        message = f"error: --out {other.parent}: is a folder of inputs, so outputs would be inputs"
        self.refused(capsys, other.parent, message, *common, other.parent)
        (tmp_path / "empty").mkdir()
        message = f"error: {tmp_path / 'empty'}: no raster in this folder"
        self.refused(capsys, maps, message, *common, tmp_path / "empty")
        message = f"error: {tmp_path / 'none.tif'}: no such file or folder. Correct the path."
        self.refused(capsys, maps, message, *common, tmp_path / "none.tif")

    def test_models_that_are_no_ensemble(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        maps, common = tmp_path / "maps", ("--model", model, tiles)
        message = f"error: --disagreement: found only --model {model}; expected two models or more"
        self.refused(capsys, maps, message, *common, "--disagreement")
        message = f"error: --model {model}: has the same weights as {model}, which would count tw"
        self.refused(capsys, maps, message, *common, "--model", model)
        (tiles / "b.tif").rename(tiles / "a.disagreement.tif")
        other = ("--model", write_model(tmp_path / "other", seed=1), "--disagreement")
        message = f"its output {maps / 'a.disagreement.tif'} is also the output of "
        self.refused(capsys, maps, message, *common, *other)

    def test_outputs_that_would_replace_a_file_of_the_input(
        self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its footprints' database, and a source of a VRT."""
        pixels = tile_pixels(0, 40)[0]
        write_container(tmp_path / "a.gpkg", {"a": pixels})
        write_raster(tmp_path / "b.tif", pixels, **GEO)
        with rasterio.open(tmp_path / "b.tif") as source:
            rasterio.shutil.copy(source, tmp_path / "b.vrt", driver="VRT")
        for name, output in (("a.gpkg", "a.gpkg"), ("b.vrt", "b.tif")):
            message = f"the output {tmp_path / output} would replace this input. Choose another"
            options = ("--vector", "gpkg", "--overwrite", "--model", model)
            before = (tmp_path / output).read_bytes()
            self.refused(capsys, tmp_path, message, tmp_path / name, *options)
            assert (tmp_path / output).read_bytes() == before

    def test_a_wrong_model(
        self, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        message = f"error: {tmp_path / 'none'}: expected a model, found nothing"
        self.refused(capsys, tmp_path / "maps", message, "--model", tmp_path / "none", tiles)

    @pytest.mark.whole
    def test_all_unusable_inputs_are_named_before_any_is_predicted(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        image = tile_pixels(0, 40)[0]
        write_raster(tiles / "grey.tif", image[:, :, 0], **GEO)
        write_raster(tiles / "deep.tif", image.astype(np.uint16), **GEO)
        (tiles / "text.tif").write_text("no raster")
        out = tmp_path / "maps"
        for name in ("grey", "deep", "text"):
            message = f"{tiles / name}.tif: "
            self.refused(capsys, out, message, "--model", model, tiles)
        assert not out.exists()
        for number in range(12):
            (tiles / f"text{number}.tif").write_text("no raster")
        self.refused(capsys, out, "and 5 more", "--model", model, tiles)

    def test_damaged_pixels_do_not_stop_the_other_inputs(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_raster(tiles / "a.tif", tile_pixels(0, 90)[0], compress="deflate", **GEO)
        whole = (tiles / "a.tif").read_bytes()
        (tiles / "a.tif").write_bytes(whole[: len(whole) // 2])
        out = tmp_path / "maps"
        assert roofseg("--model", model, tiles, "--out", out) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {tiles / 'a.tif'}: cannot be read")
        assert names(out) == ["b.tif"]

    def test_footprints_that_are_open_elsewhere_are_named_before_any_input_is_predicted(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "maps"
        arguments = ("--model", model, tiles, "--vector", "gpkg", "--overwrite")
        assert roofseg(*arguments, "--out", out) == 0
        before = (out / "a.tif").stat().st_mtime_ns
        editor = (
            "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); "
            "d.execute('pragma journal_mode=wal'); d.execute('select * from gpkg_contents'); "
            "print(flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", editor, out / "b.gpkg"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as running:
            assert running.stdout is not None
            running.stdout.readline()
            message = f"error: {out / 'b.gpkg'}: is open in another program"
            self.refused(capsys, out, message, *arguments)
            running.communicate()
        assert (out / "a.tif").stat().st_mtime_ns == before

    @pytest.mark.parametrize("name", ["a.tif", "a.gpkg"])
    def test_a_folder_in_place_of_an_output_stays(
        self,
        model: Path,
        tiles: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        name: str,
    ) -> None:
        kept = tmp_path / "maps" / name / "kept"
        kept.mkdir(parents=True)
        arguments = ("--model", model, tiles, "--vector", "gpkg", "--overwrite")
        self.refused(capsys, tmp_path / "maps", f"{kept.parent}: is a folder; expected", *arguments)
        assert kept.is_dir()

    def test_a_folder_without_permission_is_named(
        self, model: Path, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with public_folder() as public:
            shutil.copytree(model, public / "model")
            shutil.copytree(tiles, public / "tiles")
            closed = public / "closed"
            closed.mkdir(0)
            with nobody():
                for found, *arguments in (
                    (closed, "--model", public / "model", closed),
                    (closed / "a.tif", "--model", public / "model", closed / "a.tif"),
                    (closed / "unet", "--model", closed / "unet", public / "tiles"),
                    (
                        closed / "a.tif",
                        "--model",
                        public / "model",
                        public / "tiles",
                        "--out",
                        closed,
                    ),
                ):
                    message = f"error: {found}: Permission denied. Change the permissions"
                    self.refused(capsys, public / "maps", message, *arguments)
        long = tmp_path / ("a" * 300)
        self.refused(
            capsys, tmp_path / "maps", f"error: {long}: File name too long", "--model", model, long
        )

    @pytest.mark.parametrize("below", ["", "oslo/2026"])
    def test_something_else_in_place_of_the_output_folder(
        self,
        model: Path,
        tiles: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        below: str,
    ) -> None:
        """Named before a model is loaded."""
        (tmp_path / "file").write_text("a file")
        (tmp_path / "to-file").symlink_to("file")
        (tmp_path / "to-nothing").symlink_to("/mnt/gone")
        (tmp_path / "to-itself").symlink_to("to-itself")
        for name, found in (
            ("file", "is a file"),
            ("to-file", "is a link to file, which is no folder"),
            ("to-nothing", "is a link to /mnt/gone, which is no folder"),
            ("to-itself", "is a link to to-itself, which is no folder"),
        ):
            out = tmp_path / name / below
            assert roofseg("--model", tmp_path / "none", tiles, "--out", out) == 2
            who = tmp_path / name if below else "it"
            message = f"error: --out {out}: {who} {found}; expected a folder to write to. Choose"
            assert capsys.readouterr().err.startswith(message)
        assert (tmp_path / "file").read_text() == "a file"

    def test_a_link_to_a_folder_is_a_folder(self, model: Path, tiles: Path, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "link").symlink_to("disk")
        assert roofseg("--model", model, tiles / "a.tif", "--out", tmp_path / "link" / "x") == 0
        assert names(tmp_path / "disk" / "x") == ["a.tif"]


@pytest.mark.whole
def test_a_closed_pipe_is_not_an_error(tiles: Path, tmp_path: Path) -> None:
    """`roofseg predict ... | head -1` closes it, while it predicts or when it has nothing to do."""
    model = write_onnx(tmp_path / "grey.onnx")  # which loads faster than torch
    command = [sys.executable, "-m", "roofseg", "predict", "--model", model, tiles / "a.tif"]
    command += ["--out", tmp_path / "maps", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": ""}
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        for _ in range(2):
            done = subprocess.run(
                command, env=environment, stdout=write_end, stderr=subprocess.PIPE, text=True
            )
            assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
    finally:
        os.close(write_end)
