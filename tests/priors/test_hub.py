"""Priors of the hub, from a server on this host that answers as huggingface.co does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from local_hub import Hub, serving
from safetensors.torch import save

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file
from roofseg.core.weights import read_weights
from roofseg.models.roof_model import build_model
from roofseg.priors.hub import _licence, find_weights, make_hub_prior
from roofseg.recipe.priors import HubPrior
from roofseg.tiles.licence import Licence
from roofseg.training.prior import load_prior

TIMM = "tu-mobilenetv3_small_050.lamb_in1k"
REPOSITORY = "timm/mobilenetv3_small_050.lamb_in1k"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub
        huggingface_hub.close_session()


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """All weights of timm's model, with its classifier."""
    return timm.create_model("mobilenetv3_small_050", pretrained=False).state_dict()


def serve(hub: Hub, weights: dict[str, torch.Tensor], commit: str = "c" * 40) -> bytes:
    content = save(weights)
    hub.files[REPOSITORY, "model.safetensors"] = commit, content
    return content


def test_weights_of_timm_become_the_encoders(hub: Hub, weights: Any, tmp_path: Path) -> None:
    content = serve(hub, weights)
    path, _ = make_hub_prior("lamb", HubPrior(encoder=TIMM), tmp_path / "weights")
    model = build_model("unet", TIMM, dropout=0.0, patch_size=64)
    load_prior(model, path)
    plain = {name.replace(".", "_"): tensor for name, tensor in weights.items()}
    for name, tensor in model.encoder.state_dict().items():
        wanted = plain[name.removeprefix("model.").replace(".", "_")]
        assert torch.equal(tensor, wanted), name
    record = read_json(path.with_suffix(".json"))
    assert record == {
        "prior": "lamb",
        "source": f"{REPOSITORY}/model.safetensors on huggingface.co",
        "revision": "c" * 40,
        "source_sha256": hashlib.sha256(content).hexdigest(),
        "sha256": sha256_file(path),
        "encoder": TIMM,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "licence": {"spdx": "Apache-2.0", "terms": "Weights under the licence Apache-2.0."},
        "declared": {"hub": TIMM, "weights": None},
    }


def test_a_second_machine_gets_the_same_or_an_error(
    hub: Hub, weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record in git pins commit and SHA-256: neither a new commit nor another file is taken."""
    folder, prior = tmp_path / "weights", HubPrior(encoder=TIMM)
    serve(hub, weights)
    first = make_hub_prior("lamb", prior, folder)[0].read_bytes()
    record = (folder / "lamb.json").read_bytes()
    # The repository moves on, and its old commit is gone.
    other = {name: tensor + 1 for name, tensor in weights.items()}
    serve(hub, other, commit="d" * 40)
    (folder / "lamb.safetensors").unlink()
    hub.asked.clear()
    assert make_hub_prior("lamb", prior, folder)[0].read_bytes() == first  # from the cache
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    made, notes = make_hub_prior("lamb", prior, folder)  # as from `dvc pull`
    assert made.read_bytes() == first
    assert "lamb.safetensors was made before, and is kept, since " in notes[0]
    assert (folder / "lamb.json").read_bytes() == record
    made.unlink()
    with pytest.raises(UserError, match=r"could not be downloaded .*resolve/c{40}/model.safe"):
        make_hub_prior("lamb", prior, folder)
    # Another file under the pinned commit.
    serve(hub, other)
    with pytest.raises(
        UserError,
        match=r"found SHA-256 .*lamb\.json pins .*, remove .*lamb\.json",
    ):
        make_hub_prior("lamb", prior, folder)
    assert (folder / "lamb.json").read_bytes() == record
    # The remedy works: without the record, the new weights are accepted and pinned.
    (folder / "lamb.json").unlink()
    made, _ = make_hub_prior("lamb", prior, folder)
    assert made.read_bytes() != first
    assert read_json(folder / "lamb.json")["revision"] == "c" * 40


def test_pinned_weights_can_be_put_there_by_hand(hub: Hub, weights: Any, tmp_path: Path) -> None:
    content = serve(hub, weights)
    prior = HubPrior(encoder=TIMM)
    first = make_hub_prior("lamb", prior, tmp_path / "weights")[0].read_bytes()
    hub.files.clear()
    hub.asked.clear()
    by_hand = tmp_path / "weights" / "lamb.source.safetensors"
    by_hand.write_bytes(content)
    assert make_hub_prior("lamb", prior, tmp_path / "weights")[0].read_bytes() == first
    assert hub.asked == []
    by_hand.write_bytes(content[:-4] + b"\1\1\1\1")
    with pytest.raises(UserError, match=r"lamb\.source\.safetensors: found SHA-256"):
        make_hub_prior("lamb", prior, tmp_path / "weights")


def test_a_record_of_other_weights_is_an_error(hub: Hub, weights: Any, tmp_path: Path) -> None:
    serve(hub, weights)
    make_hub_prior("lamb", HubPrior(encoder=TIMM), tmp_path)
    with pytest.raises(UserError, match=r"lamb\.json: pins timm/mobile.*now means timm/resnet18"):
        make_hub_prior("lamb", HubPrior(encoder="tu-resnet18.a1_in1k"), tmp_path)


def test_without_a_network_one_error_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not be downloaded .*404.*network\. The first"):
        make_hub_prior("lamb", HubPrior(encoder=TIMM), tmp_path)
    assert not (tmp_path / "lamb.json").exists()


def test_a_file_of_another_model_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    serve(hub, {"a": torch.zeros(1)})
    with pytest.raises(UserError, match=rf"^{REPOSITORY}.*not the weights of encoder {TIMM} \("):
        make_hub_prior("lamb", HubPrior(encoder=TIMM), tmp_path)
    assert list(tmp_path.glob("lamb*")) == []


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    state = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    return {**state, "fc.weight": torch.ones(1, 1), "fc.bias": torch.ones(1)}


def serve_smp(hub: Hub, name: str, state: dict[str, torch.Tensor], config: Any) -> None:
    wanted = find_weights(HubPrior(encoder="resnet18", weights=name), "")
    for file, content in (
        ("model.safetensors", save(state)),
        ("config.json", json.dumps(config).encode()),
    ):
        hub.files[wanted.repository, file] = wanted.revision or "", content


def test_weights_of_smp_by_their_name(hub: Hub, resnet18: Any, tmp_path: Path) -> None:
    statistics = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    serve_smp(hub, "ssl", resnet18, statistics)
    path, _ = make_hub_prior("ssl", HubPrior(encoder="resnet18", weights="ssl"), tmp_path)
    kept = {name: t for name, t in resnet18.items() if not name.startswith("fc.")}
    tensors = read_weights(path)
    assert tensors.keys() == kept.keys()
    assert all(torch.equal(tensors[name], kept[name]) for name in kept)
    settings = smp.encoders.encoders["resnet18"]["pretrained_settings"]["ssl"]
    record = read_json(path.with_suffix(".json"))
    assert record["revision"] == settings["revision"]
    assert record["licence"]["spdx"] == "other"


def test_other_statistics_must_be_declared(hub: Hub, resnet18: Any, tmp_path: Path) -> None:
    serve_smp(hub, "ssl", resnet18, {"mean": [0.5] * 3, "std": [0.25] * 3})
    with pytest.raises(UserError, match=r"Add `mean: \[0\.5, 0\.5, 0\.5\]` and `std: \[0\.25, 0"):
        make_hub_prior("ssl", HubPrior(encoder="resnet18", weights="ssl"), tmp_path)
    own = HubPrior(encoder="resnet18", weights="ssl", mean=[0.5] * 3, std=[0.25] * 3)
    record = read_json(make_hub_prior("ssl", own, tmp_path)[0].with_suffix(".json"))
    assert (record["mean"], record["std"]) == ([0.5] * 3, [0.25] * 3)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"encoder": "resnet18", "weights": "sl"}, "no weights 'sl' .*; it has imagenet, ssl"),
        ({"encoder": "tu-resnet18", "weights": "a1"}, r"name in the encoder.*tu-resnet18\.TAG"),
        ({"encoder": "tu-resnet18.zzz"}, r"no weights .* resnet18\.zzz; it has resnet18\.a1_in1k"),
        (
            {"encoder": "sam_vit_b"},
            r"smp has no weights 'imagenet' for encoder 'sam_vit_b'\. Name another encoder, or use",
        ),
        ({"encoder": "tu-tiny_vit_1m"}, r"no weights .* tiny_vit_1m\. Name another, or use a file"),
    ],
)
def test_weights_that_do_not_exist(declared: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^priors\.hub\.x.*{says}"):
        make_hub_prior("x", HubPrior(**declared), tmp_path)


@pytest.mark.parametrize(
    ("stated", "spdx", "terms"),
    [
        ("apache-2.0", "Apache-2.0", "Weights under the licence Apache-2.0."),
        ("bsd-3-clause", "BSD-3-Clause", "Weights under the licence BSD-3-Clause."),
        ("dinov3-license", "other", "timm states the licence dinov3-license: see there."),
        ("unknown", "other", "Not stated: see there."),
        (None, "other", "Not stated: see there."),
    ],
)
def test_a_licence_of_timm_that_spdx_does_not_list_is_in_words(
    stated: str | None, spdx: str, terms: str
) -> None:
    assert _licence(stated, "there") == Licence(spdx, terms)


def test_half_precision_on_the_hub_is_said(hub: Hub, weights: Any, tmp_path: Path) -> None:
    half = {n: t.half() if t.is_floating_point() else t for n, t in weights.items()}
    serve(hub, half)
    _, notes = make_hub_prior("lamb", HubPrior(encoder=TIMM), tmp_path)
    assert notes == ["tensors of torch.float16 became float32"]
