from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph import ROOT
from small_model import P, write_model

from roofseg.core.errors import UserError
from roofseg.core.files import sha256_file, write_json
from roofseg.inference.predictor import D4, Images, Predictor, Probabilities
from roofseg.mapping.load_model import load_predictor

pytestmark = pytest.mark.usefixtures("one_thread")


class Corner:
    """A predictor that depends only on the top-left pixels of a window."""

    window, gsd = 8, (0.3,)
    provenance: dict[str, str] = {"ROOFSEG_ATTEMPT": "corner"}  # noqa: RUF012

    def __call__(self, images: Images) -> Probabilities:
        found = np.zeros(images.shape[:3], np.float32)
        found[:, :4, :2] = images[:, :4, :2, 0] / np.float32(255)
        return found


def noise(count: int, size: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


class TestD4:
    def test_all_eight_symmetries_are_predicted(self) -> None:
        seen = set()

        class Watched(Corner):
            def __call__(self, images: Images) -> Probabilities:
                seen.add(images.tobytes())
                return super().__call__(images)

        images = noise(2, 4)
        D4(Watched())(images)
        assert seen == {
            np.rot90(view, quarters, (1, 2)).tobytes()
            for view in (images, images[:, ::-1])
            for quarters in range(4)
        }
        assert len(seen) == 8

    def test_the_mean_rotates_with_its_image(self) -> None:
        images, averaged = noise(3, 8), D4(Corner())
        found = averaged(images)
        assert found.dtype == np.float32
        assert (found > 0).mean() > 0.7
        for quarters in range(4):
            turned = averaged(np.ascontiguousarray(np.rot90(images, quarters, (1, 2))))
            np.testing.assert_allclose(np.rot90(turned, -quarters, (1, 2)), found, rtol=1e-6)
        flipped = averaged(np.ascontiguousarray(images[:, ::-1]))
        np.testing.assert_allclose(flipped[:, ::-1], found, rtol=1e-6)

    def test_a_symmetric_predictor_is_unchanged_bit_for_bit(self) -> None:
        class Red(Corner):
            def __call__(self, images: Images) -> Probabilities:
                assert images.flags.c_contiguous
                return images[..., 0] / np.float32(255)

        images = noise(3, 8)
        np.testing.assert_array_equal(D4(Red())(images), Red()(images))

    def test_it_keeps_window_gsd_and_provenance(self) -> None:
        averaged: Predictor = D4(Corner())
        assert (averaged.window, averaged.gsd) == (8, (0.3,))
        assert averaged.provenance == Corner.provenance


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "unet", gsd=[0.5, 0.3])


class TestLoading:
    def test_a_folder_holds_all_that_prediction_needs(self, unet: Path) -> None:
        predictor = load_predictor(unet, device="cpu", precision="32-true")
        assert (predictor.window, predictor.gsd) == (P, (0.3, 0.5))
        assert predictor.provenance == {
            "ROOFSEG_ATTEMPT": "unet",
            "ROOFSEG_RECIPE_DIGEST": "0123456789ab",
            "ROOFSEG_WEIGHTS_SHA256": sha256_file(unet / "model.safetensors"),
            "ROOFSEG_PRECISION": "32-true",
        }
        found = predictor(noise(2, P))
        assert (found.shape, found.dtype) == ((2, P, P), np.float32)

    @pytest.fixture
    def folder(self, unet: Path, tmp_path: Path) -> Path:
        """A copy of the model that a test may break."""
        for file in unet.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        return tmp_path

    def refused(self, path: Path, message: str, **options: Any) -> None:
        with pytest.raises(UserError, match=message) as caught:
            load_predictor(path, **options)
        assert str(path) in str(caught.value)

    def test_statistics_that_a_prior_declares_are_the_models(self, folder: Path) -> None:
        record = json.loads((folder / "recipe.json").read_text())
        plain = load_predictor(folder, device="cpu")(noise(1, P))
        # Twice the deviation: the model sees the same as from an image with half the contrast.
        statistics = {"mean": [0.485, 0.456, 0.406], "std": [0.458, 0.448, 0.45]}
        record["recipe"]["declared"] = {"sha256": "1" * 64, **statistics}
        write_json(folder / "recipe.json", record)
        predictor = load_predictor(folder, device="cpu")
        assert predictor.model.std.flatten().tolist() == pytest.approx(statistics["std"])
        assert np.abs(predictor(noise(1, P)) - plain).max() > 1e-4

    def test_a_missing_model(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none", "expected a model, found nothing")

    def test_a_file_that_is_not_a_model(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        self.refused(tmp_path / "notes.txt", "expected a model, found a file")

    def test_missing_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        self.refused(folder, r"model\.safetensors: no such file.*dvc pull")

    def test_a_missing_recipe(self, folder: Path) -> None:
        (folder / "recipe.json").unlink()
        self.refused(folder, r"recipe\.json: no such file.*dvc pull")

    @pytest.mark.whole
    def test_weights_of_another_architecture(self, folder: Path) -> None:
        write_model(folder, "deeplabv3plus")
        record = json.loads((folder / "recipe.json").read_text())
        record["recipe"]["architecture"] = "unet"
        write_json(folder / "recipe.json", record)
        self.refused(folder, r"model\.safetensors: not the weights of this architecture.*lacks")

    @pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"a": 1}'])
    def test_a_file_that_is_not_weights(self, folder: Path, content: bytes) -> None:
        (folder / "model.safetensors").write_bytes(content)
        self.refused(folder, r"model\.safetensors: expected a safetensors file")

    def test_a_pickle_in_place_of_weights_is_never_loaded(self, folder: Path) -> None:
        made = folder / "made by the pickle"

        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (made,)

        trap = pickle.dumps({"encoder.weight": Trap()})
        (folder / "model.safetensors").write_bytes(trap)
        self.refused(folder, r"model\.safetensors: expected a safetensors file")
        assert not made.exists()
        pickle.loads(trap)
        assert made.exists()  # the trap works

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("patch_size", None, "patch_size: Input should be a valid integer"),
            ("patch_size", 50, "patch_size: found 50; expected a multiple of 32"),
            ("gsd", 0.3, "gsd: Input should be a valid array"),
            ("gsd", [-1.0], r"gsd\.0: Input should be greater than 0"),
            ("recipe", {}, r"recipe\.architecture: Field required"),
            (
                "recipe",
                {"architecture": "mystery", "encoder": "resnet34", "dropout": 0.1},
                "architecture: .*mystery",
            ),
        ],
    )
    def test_a_recipe_with_wrong_values(
        self, folder: Path, key: str, value: Any, message: str
    ) -> None:
        record = json.loads((folder / "recipe.json").read_text())
        write_json(folder / "recipe.json", {**record, key: value})
        self.refused(folder, message)

    @pytest.mark.parametrize("text", ["", "{", "[]", '"words"'])
    def test_a_file_that_is_not_a_recipe(self, folder: Path, text: str) -> None:
        (folder / "recipe.json").write_text(text)
        self.refused(folder, r"recipe\.json: .*expected the recipe\.json that training wrote")

    def test_a_device_that_is_not_available(self, folder: Path) -> None:
        missing = "mps" if sys.platform == "linux" else "cuda"
        message = re.escape(f"{folder}: device: '{missing}' is not available here")
        self.refused(folder, message, device=missing)


@pytest.mark.whole
def test_checking_inputs_needs_no_torch() -> None:
    """Neither the interface of predictors nor `roofseg predict --help` imports torch."""
    code = "import sys, roofseg.cli; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, text=True, env=environment) == "False\n"
