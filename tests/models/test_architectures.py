"""The same tests for all pairs of architecture and encoder, on images of a few tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graph import ROOT
from small_model import write_model
from tiers import cases
from torch import nn

from roofseg.core.errors import UserError
from roofseg.evaluation.costs import multiply_adds
from roofseg.mapping.onnx_export import export
from roofseg.mapping.onnx_predictor import TOLERANCE
from roofseg.models import lora, vit
from roofseg.models.decoders import ConvDecoder, DptDecoder, UnetDecoder
from roofseg.models.roof_model import BUILDERS, RoofModel, build_encoder, build_model
from roofseg.recipe.architectures import ARCHITECTURES
from roofseg.recipe.lora import TARGETS, Lora
from roofseg.recipe.parsing import _batch_norm_of_one_value

LITE0 = "tu-tf_efficientnet_lite0"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
DINO2, DINO3 = "tu-vit_small_patch14_reg4_dinov2", "tu-vit_small_patch16_dinov3"
TINY = "tu-vit_tiny_patch16_dinov3_qkvb"
SAM2 = "tu-sam2_hiera_tiny"
# Parameters in millions: the whole model, and its decoder.
MODELS = {
    ("unet", LITE0): (5.2, 2.2),
    ("deeplabv3plus", LITE0): (3.9, 0.9),
    ("fpn", LITE0): (4.7, 1.8),
    ("upernet", LITE0): (10.6, 7.6),
    ("segformer", "mit_b0"): (3.7, 0.4),
    ("sam_unet", "sam_vit_b"): (96.3, 6.6),
    ("vit_conv", DINO2): (24.2, 2.1),
    ("vit_unet", "mobile_sam"): (11.7, 6.0),
    ("dpt", TINY): (34.7, 29.2),
}
WHOLE = {
    ("sam_conv", "sam_vit_b"): (91.5, 1.8),
    ("unet", "resnet34"): (24.4, 3.2),
    ("deeplabv3plus", "resnet34"): (22.4, 1.2),
    ("upernet", "tu-convnext_atto"): (11.0, 7.6),
    ("vit_conv", SAM2): (30.7, 3.8),
    ("vit_unet", SAM2): (32.8, 5.9),
    ("vit_unet", "tu-vit_small_patch14_dinov2"): (28.3, 6.2),
    ("vit_unet", DINO3): (27.8, 6.2),
    ("dpt", DINO3): (52.2, 30.6),
    ("dpt", SAM2): (44.9, 18.1),
    ("dpt", "mobile_sam"): (32.5, 26.8),
}
MODELS |= WHOLE
DROPOUTS = {
    "unet": ["decoder.dropout"],
    "deeplabv3plus": ["decoder.decoder.aspp.0.project.3", "decoder.dropout"],
    "fpn": ["decoder.dropout"],
    "upernet": ["decoder.dropout"],
    "segformer": ["decoder.dropout"],
    "sam_conv": ["decoder.head.0"],
    "sam_unet": ["decoder.head.0"],
    "vit_conv": ["decoder.head.0"],
    "vit_unet": ["decoder.head.0"],
    "dpt": ["decoder.head.head.3"],
}


def build(architecture: str, encoder: str, dropout: float = 0.3, size: int = 64) -> RoofModel:
    torch.manual_seed(0)
    return build_model(architecture, encoder, dropout=dropout, patch_size=size)


@pytest.fixture(scope="module", params=cases(MODELS, whole=WHOLE), ids="-".join)
def built(request: pytest.FixtureRequest) -> tuple[RoofModel, str, str]:
    return build(*request.param), *request.param


@pytest.fixture
def model(built: tuple[RoofModel, str, str]) -> Iterator[RoofModel]:
    """The built model, thawed and in train mode, without gradients."""
    model, _, _ = built
    model.freeze_encoder(False)
    model.train()
    model.zero_grad()
    yield model
    model.zero_grad()


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def moving(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the BatchNorm statistics, which training changes."""
    return {name: b.clone() for name, b in module.named_buffers() if "running" in name}


def active_dropouts(module: nn.Module) -> list[str]:
    return [
        name
        for name, layer in module.named_modules()
        if "Dropout" in type(layer).__name__ and layer.p > 0
    ]


def test_output_is_one_logit_per_pixel(model: RoofModel) -> None:
    model.eval()
    x = images(2, 3, 64, 96)
    with torch.no_grad():
        logits = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x.contiguous(memory_format=torch.channels_last))
    assert logits.shape == rough.shape == (2, 1, 64, 96)
    assert logits.isfinite().all()
    assert logits.std() > 0
    assert (logits - rough.float()).abs().mean() < 0.1 * logits.std()


def test_the_model_normalises_by_the_encoders_statistics(
    model: RoofModel, built: tuple[RoofModel, str, str]
) -> None:
    mean, std = HALF if built[2] == LITE0 else IMAGENET  # SAM's are ImageNet's, on 0..255
    model.eval()
    x = images(1, 3, 64, 64)
    normalised = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(
            model(x), model.decoder(model.encoder(normalised)), rtol=1e-3, atol=1e-3
        )
    assert "mean" not in model.state_dict()


def test_features_that_the_decoder_does_not_read_have_no_values(
    model: RoofModel, built: tuple[RoofModel, str, str]
) -> None:
    model.freeze_encoder(True)
    x = images(2, 3, 64, 96)
    with torch.no_grad():
        everything, features = model.encoder((x - model.mean) / model.std), model.encode(x)
        torch.manual_seed(0)
        logits = model.decode(features)
        assert [each.shape for each in features] == [each.shape for each in everything]
        for place, (feature, full) in enumerate(zip(features, everything, strict=True)):
            assert feature.is_meta == (place not in BUILDERS[built[1]].reads)
            assert feature.is_meta or torch.equal(feature, full)  # and decoding wrote nothing there
            if not feature.is_meta and feature.numel():  # some encoders have nothing at 1/2
                other = [*features[:place], feature.flip(0), *features[place + 1 :]]
                torch.manual_seed(0)
                assert not torch.equal(model.decode(other), logits), place


def test_parameter_counts(model: RoofModel, built: tuple[RoofModel, str, str]) -> None:
    total, decoder = MODELS[built[1], built[2]]
    count = sum(p.numel() for p in model.parameters())
    decoder_count = sum(p.numel() for p in model.decoder_parameters())
    encoder_count = sum(p.numel() for p in model.encoder_parameters())
    assert round(count / 1e6, 1) == total
    assert round(decoder_count / 1e6, 1) == decoder
    assert count == decoder_count + encoder_count


def test_dropout_is_in_the_decoder_alone(
    model: RoofModel, built: tuple[RoofModel, str, str]
) -> None:
    assert active_dropouts(model) == DROPOUTS[built[1]]
    assert all(model.get_submodule(name).p == 0.3 for name in active_dropouts(model))
    with torch.no_grad():
        model.eval()
        features = model.encoder(images(2, 3, 64, 64))
        assert torch.equal(model.decoder(features), model.decoder(features))
        for name in active_dropouts(model):
            model.eval()
            model.get_submodule(name).train()
            assert not torch.equal(model.decoder(features), model.decoder(features)), name


@pytest.mark.parametrize(
    "architecture", [name for name, takes in ARCHITECTURES.items() if takes == "smp"]
)
def test_dropout_zero_turns_all_dropout_off(architecture: str) -> None:
    assert active_dropouts(build(architecture, LITE0, dropout=0.0)) == []


def test_a_frozen_encoder_does_not_change(model: RoofModel) -> None:
    model.freeze_encoder(True)
    assert not any(layer.training for layer in model.encoder.modules())
    model.train()
    before = moving(model.encoder)
    model(images(2, 3, 64, 64)).square().mean().backward()
    assert not any(layer.training for layer in model.encoder.modules())
    assert all(layer.training for layer in model.decoder.modules())
    for name, value in moving(model.encoder).items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.encoder_parameters())
    assert all(p.grad is not None for p in model.decoder_parameters())
    assert sum(p.grad.abs().sum() for p in model.decoder_parameters()) > 0
    assert all(p.requires_grad for p in model.parameters())


def test_a_thawed_encoder_is_trained(model: RoofModel, built: tuple[RoofModel, str, str]) -> None:
    model.freeze_encoder(True)
    model.freeze_encoder(False)
    assert all(layer.training for layer in model.modules())
    before = moving(model.encoder)
    model(images(2, 3, 64, 64)).square().mean().backward()
    assert all(not torch.equal(v, before[name]) for name, v in moving(model.encoder).items())
    # Decoders over the skips of a ViT do not use its last layers: SAM's neck, a plain ViT's norm.
    # (A bias before the softmax over positions may get a gradient of zero, but it gets one.)
    last = ("neck.", "model.norm.") if built[1] in ("sam_unet", "vit_unet", "dpt") else ()
    for name, parameter in model.encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith(last), name


def test_a_thawed_encoder_is_deterministic(model: RoofModel) -> None:
    """No dropout, stochastic depth or random positions are left in an encoder."""
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        for once, again in zip(model.encoder(x), model.encoder(x), strict=True):
            assert torch.equal(once, again)


def test_features_of_single_images_are_those_of_the_batch(model: RoofModel) -> None:
    """Training keeps the features of each view and puts them together as batches."""
    model.eval()
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        alone = [model.encode(image[None]) for image in x]
        together = [torch.cat(parts) for parts in zip(*alone, strict=True)]
        torch.testing.assert_close(model.decode(together), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_batch_of_one_trains_unless_params_refuse_it(
    model: RoofModel, built: tuple[RoofModel, str, str], size: int, frozen: bool
) -> None:
    """BatchNorm cannot train on one value per channel."""
    recipe: Any = SimpleNamespace(architecture=built[1], thaw_epoch=None if frozen else 0)
    params: Any = SimpleNamespace(patch_size=size)
    refused = bool(_batch_norm_of_one_value(params, recipe))
    model.freeze_encoder(frozen)
    message = ""
    with torch.no_grad():
        try:
            model(images(1, 3, size, size))
        except ValueError as error:
            message = str(error)
    assert message == "" or "more than 1 value per channel" in message
    # The check of the parameters does not know which encoders have no BatchNorm.
    assert bool(message) == refused or (refused and built[2] in ("mit_b0", "tu-convnext_atto"))


@pytest.mark.parametrize("size", [(32, 32), (96, 160)], ids=str)
def test_other_sizes_than_the_patches(model: RoofModel, size: tuple[int, int]) -> None:
    model.eval()
    with torch.no_grad():
        logits = model(images(1, 3, *size))
    assert logits.shape == (1, 1, *size)
    assert logits.isfinite().all()


def test_thaw_in_eval_mode_stays_in_eval_mode(model: RoofModel) -> None:
    model.eval()
    model.freeze_encoder(True)
    model.freeze_encoder(False)
    assert not any(layer.training for layer in model.modules())


def test_a_size_that_is_not_a_multiple_of_the_stride_is_an_error(model: RoofModel) -> None:
    with pytest.raises(ValueError, match=rf"64x72 pixels; expected multiples of {model.multiple}"):
        model(images(1, 3, 64, 72))


def test_every_architecture_has_a_builder() -> None:
    assert BUILDERS.keys() == ARCHITECTURES.keys()


def test_a_vit_can_be_built_without_computing_its_weights(
    model: RoofModel, built: tuple[RoofModel, str, str]
) -> None:
    """As `stages.check_params` does."""
    if ARCHITECTURES[built[1]] == "smp":
        pytest.skip("some encoders of smp cannot")
    with torch.device("meta"):
        shapes = build(*built[1:]).state_dict()
    assert {name: each.shape for name, each in shapes.items()} == {
        name: each.shape for name, each in model.state_dict().items()
    }


@pytest.mark.whole
def test_same_seed_same_weights(model: RoofModel, built: tuple[RoofModel, str, str]) -> None:
    again = dict(build(*built[1:]).named_parameters())
    assert again.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again[name]), name


@pytest.mark.whole
def test_multiply_adds_are_counted(model: RoofModel) -> None:
    assert multiply_adds(model, 64) > 1e7
    # Less than four times as many where windows of attention are padded to their full size.
    assert multiply_adds(model, 128) > 1.5 * multiply_adds(model, 64)


@pytest.mark.whole
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [pytest.param(*pair, marks=[pytest.mark.slow] if pair in WHOLE else []) for pair in MODELS],
)
def test_onnx_export_agrees(architecture: str, encoder: str, tmp_path: Path) -> None:
    """`export` compares the exported model with torch's, and raises if they differ."""
    folder = write_model(tmp_path / "model", architecture, encoder=encoder)
    done = export(folder, tmp_path / "model.onnx")
    assert done.window == 64
    assert done.difference <= TOLERANCE


PAGE = (ROOT / "docs" / "models.md").read_text()


def test_the_page_lists_every_architecture() -> None:
    table = PAGE.split("## ")[0]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in row.split(", ")}
    assert listed == {f"`{name}`" for name in ARCHITECTURES}


@pytest.mark.whole
def test_the_page_has_the_parameters_of_vits() -> None:
    rows = re.findall(
        r"^\| `(.+?)` \|.*?\| ([\d, ]+) \| ([\d.]+)" + r" \| ([\d.]+)" * 4, PAGE, re.M
    )
    assert len(rows) == 12
    for encoder, strides, *counts, adapted in rows:
        with torch.device("meta"):
            module = vit.build_encoder(encoder)
            decoders = [kind(module.shapes, 0.0) for kind in (ConvDecoder, UnetDecoder, DptDecoder)]
        assert strides == ", ".join(str(stride) for stride in module.shapes.strides)
        rank_8 = lora.count(module, Lora(8, 8.0, tuple(TARGETS)))
        assert adapted == f"{rank_8 / 1e6:.2f}"
        assert counts == [
            f"{sum(p.numel() for p in each.parameters()) / 1e6:.1f}" for each in (module, *decoders)
        ]


OF_THE_PAGE = re.findall(r"^\| `(.+?)` \|.*?\| [\d, ]+ \|", PAGE, re.M)
SLOW = [name for name in OF_THE_PAGE if name not in ("mobile_sam", SAM2, DINO3)]


@pytest.mark.parametrize("encoder", cases([*OF_THE_PAGE, LITE0], whole=SLOW))
def test_a_prior_of_an_encoder_fits_every_architecture_that_takes_it(encoder: str) -> None:
    """The names in `build_encoder`, which makes priors, are those in each model."""
    assert len(OF_THE_PAGE) == 12
    one_of_each = {kind: architecture for architecture, kind in ARCHITECTURES.items()}
    compared = 0
    with torch.device("cpu" if encoder == LITE0 else "meta"):
        expected = build_encoder(encoder)[0].state_dict().keys()
        for architecture in one_of_each.values():
            with suppress(UserError):  # it does not take the encoder
                assert build(architecture, encoder).encoder.state_dict().keys() == expected
                compared += 1
    assert compared
