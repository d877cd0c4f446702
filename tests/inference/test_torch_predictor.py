from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from small_model import P, write_model
from tiny_dataset import CRS, TRANSFORM, write_raster
from torch import nn
from torch.nn import functional as F  # noqa: N812

from roofseg.core.errors import UserError
from roofseg.inference import torch_predictor
from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.sliding_window.blocks import predict_blocks
from roofseg.sliding_window.imagery import open_imagery
from roofseg.sliding_window.windows import Axis

pytestmark = pytest.mark.usefixtures("one_thread")

NOISE = np.random.default_rng(0).integers(0, 256, (4, P, P, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "small")


class TestPredictor:
    def test_it_gives_the_probabilities_of_the_model(self, folder: Path) -> None:
        predictor = torch_predictor.load(folder, device="cpu", precision="32-true")
        rgb = torch.from_numpy(NOISE).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            expected = predictor.model(rgb)[:, 0].sigmoid().numpy()
        np.testing.assert_allclose(predictor(NOISE), expected, atol=1e-5)
        assert 0 < expected.min() < expected.max() < 1

    def test_half_precision_stays_near_and_is_recorded(self, folder: Path) -> None:
        full = torch_predictor.load(folder, device="cpu", precision="32-true")
        half = torch_predictor.load(folder, device="cpu", precision="bf16-mixed")
        assert half.provenance["ROOFSEG_PRECISION"] == "bf16-mixed"
        found = half(NOISE)
        assert found.dtype == np.float32
        assert 0 < np.abs(found - full(NOISE)).max() < 0.05

    @pytest.mark.whole
    @pytest.mark.parametrize(
        ("architecture", "encoder"),
        [
            ("sam_conv", "sam_vit_b"),
            ("sam_unet", "sam_vit_b"),
            ("vit_unet", "mobile_sam"),
            ("vit_unet", "tu-sam2_hiera_tiny"),
        ],
    )
    def test_half_precision_gives_the_masks_of_a_sam_model(
        self, architecture: str, encoder: str, tmp_path: Path
    ) -> None:
        """With random weights; `benchmarks.half_precision` compares trained models."""
        folder = write_model(tmp_path / "model", architecture, encoder=encoder)
        full, half = (
            torch_predictor.load(folder, device="cpu", precision=precision)(NOISE)
            for precision in ("32-true", "bf16-mixed")
        )
        assert np.abs(half - full).max() < 0.05
        middle = np.median(full)  # random models are unsure: 0.5 may be no threshold for them
        masks = full >= middle, half >= middle
        assert np.logical_and(*masks).sum() > 0.95 * np.logical_or(*masks).sum()

    def test_dropout_is_off_and_no_gradients_are_kept(self, folder: Path) -> None:
        predictor = torch_predictor.load(folder, device="cpu", precision="32-true")
        np.testing.assert_array_equal(predictor(NOISE), predictor(NOISE))
        assert not predictor.model.training

    def test_a_callers_autocast_changes_nothing(self, folder: Path) -> None:
        predictor = torch_predictor.load(folder, device="cpu", precision="32-true")
        with torch.autocast("cpu", torch.bfloat16):
            inside = predictor(NOISE)
        np.testing.assert_array_equal(inside, predictor(NOISE))

    def test_gpus_use_the_precision_and_kernels_of_scores(self) -> None:
        """The model runs with these settings, whatever the process has set."""
        seen = []

        class Recorder(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic))
                return x[:, :1]

        with torch.backends.cudnn.flags(enabled=True, deterministic=False, allow_tf32=True):
            TorchPredictor(Recorder(), window=P)(NOISE)
        assert seen == [(False, True)]

    def test_a_batch_that_does_not_fit_into_memory_is_a_user_error(self) -> None:
        class Large(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        message = f"^4 windows of {P} px at a time do not fit into the memory of cpu"
        with pytest.raises(UserError, match=message):
            TorchPredictor(Large(), window=P)(NOISE)

    def test_the_number_of_threads_is_set(self, folder: Path) -> None:
        before = torch.get_num_threads()
        try:
            torch_predictor.load(folder, device="cpu", threads=before + 1)
            assert torch.get_num_threads() == before + 1
        finally:
            torch.set_num_threads(before)


class Network(nn.Module):
    """Three convolutions with a receptive field of 7 x 7 px; each pads with zeros."""

    REACH = 3

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 1, 3, padding=1),
        )
        for weights in self.parameters():  # probabilities from nearly 0 to nearly 1
            weights.data *= 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize("overlap", [0.5, 0.25])
def test_windows_give_the_same_result_as_the_whole_image(tmp_path: Path, overlap: float) -> None:
    """Pixels whose receptive field excludes the windows' rims agree to float32, others nearly.

    Errors at a rim get the smallest weights, so they leave no seam.
    """
    height, width, window = 150, 200, 64
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    write_raster(tmp_path / "t.tif", pixels, crs=CRS, transform=TRANSFORM)
    network, reach = Network(), Network.REACH

    def windowed(overlap: float) -> npt.NDArray[np.float32]:
        infer = partial(map, TorchPredictor(network, window=window))
        with open_imagery(str(tmp_path / "t.tif")) as imagery:
            blocks = list(predict_blocks(imagery, window, infer, overlap=overlap))
        return np.concatenate([block.probability for block in blocks])

    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    with torch.inference_mode():
        image = torch.from_numpy(padded).permute(2, 0, 1)[None] / 255
        whole = F.pad(network(image), [-reach] * 4)[0, 0].sigmoid().numpy()

    free = np.ones((height, width), bool)
    for length, part in ((height, free), (width, free.T)):
        for start in Axis(length, window, overlap).starts:
            for edge in (start, start + window):
                part[max(edge - reach, 0) : max(edge + reach, 0)] = False
    off = np.abs(windowed(overlap) - whole)
    assert 0.3 < free.mean() < 0.9
    assert whole.std() > 0.1
    assert off[free].max() < 1e-6
    assert off.max() < 0.01
    assert np.abs(windowed(0) - whole).max() > 0.1
