"""Priors of files: what is read, what is renamed, and what is refused."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from graph import ROOT
from ruamel.yaml import YAML
from safetensors.torch import save_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

from roofseg.core.errors import UserError
from roofseg.core.files import read_json, sha256_file
from roofseg.core.weights import read_weights
from roofseg.models.roof_model import build_encoder, build_model
from roofseg.priors.file import fit, make_file_prior, read_tensors, renamed
from roofseg.recipe.priors import FilePrior
from roofseg.training.prior import load_prior

ENCODER = "tu-mobilenetv3_small_050"
TENSORS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


class Evil:
    """Makes a file in the folder EVIL when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["EVIL"],)


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "evil"
    monkeypatch.setenv("EVIL", str(folder))
    return folder


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


# Reading


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "key"),
    [
        (TENSORS, None),
        ({"model": TENSORS, "epoch": 3, "args": {"lr": 0.1}}, None),
        ({"model": TENSORS, "ema": {"a.bias": torch.ones(1)}}, "model"),
        ({"checkpoint": {"model": TENSORS}}, "checkpoint.model"),
        ({"model": TENSORS, "optimizer": {"state": {0: TENSORS}}}, None),
    ],
)
def test_tensors_are_found_in_checkpoints(
    tmp_path: Path, content: Any, key: str | None, legacy: bool
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert same(read_tensors(path, key), TENSORS)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    save_file(TENSORS, tmp_path / name)
    assert same(read_tensors(tmp_path / name), TENSORS)
    with pytest.raises(UserError, match="has no entries, so remove `key: model`"):
        read_tensors(tmp_path / name, "model")


@pytest.mark.parametrize(
    ("content", "key", "says"),
    [
        ({"model": TENSORS, "ema": TENSORS}, None, r"several .*: model, ema\. .*`key: model`"),
        ({"a": {"b": TENSORS}}, None, r"found entries a; expected tensors .*`key: outer\.inner`"),
        ([1, 2], None, r"found a list; expected tensors by name"),
        ({}, None, "found a dict"),
        ({"model": TENSORS}, "state_dict", r"key: state_dict does not hold tensors"),
        ({"model": TENSORS}, "model.a", r"key: model.a does not hold tensors"),
    ],
)
def test_a_checkpoint_without_one_place_for_tensors(
    tmp_path: Path, content: Any, key: str | None, says: str
) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=rf"weights\.pth: .*{says}"):
        read_tensors(tmp_path / "weights.pth", key)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "safetensors"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(
    tmp_path: Path, evil: Path, form: str
) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form in ("zip", "legacy"):
        content = {"state_dict": TENSORS, "note": Evil()}
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    else:
        path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"never unpickled|not a safetensors file"):
        read_tensors(path)
    assert not evil.exists()
    pickle.loads(pickle.dumps(Evil()))  # it does run where a file is unpickled
    assert evil.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, form: str, share: float) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    tensors = {"a": torch.rand(100, 10)}
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"weights\.\w+: .*damaged.*Get the file again"):
        read_tensors(path)


def test_a_web_page_in_place_of_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("<!DOCTYPE html><p>Please log in.")
    with pytest.raises(UserError, match=r"weights\.pth: .*damaged"):
        read_tensors(tmp_path / "weights.pth")


# Renaming


def declared(file: Path | str = "weights.pth", **own: Any) -> FilePrior:
    values = {
        "file": str(file),
        "encoder": ENCODER,
        "sha256": "0" * 64,
        "mean": [0.4, 0.4, 0.4],
        "std": [0.2, 0.2, 0.2],
        "licence": "CC-BY-4.0",
    }
    return FilePrior.model_validate({**values, **own})


def names_after(names: list[str], **rules: Any) -> list[str]:
    tensors = {name: torch.zeros(1) for name in names}
    return list(renamed(tensors, declared(**rules), Path("weights.pth")))


@pytest.mark.parametrize(
    ("rename", "expected"),
    [
        ([{"backbone.": ""}], ["layer1.0.w", "head.w"]),
        ([{"backbone.": "model."}], ["model.layer1.0.w", "head.w"]),
        (
            [{r"/layer(\d)\.(\d)/": r"stages_\1.blocks.\2"}],
            ["backbone.stages_1.blocks.0.w", "head.w"],
        ),
        # Each after the other.
        ([{"backbone.": ""}, {"layer": "stage"}], ["stage1.0.w", "head.w"]),
        ([{"/^/": "model."}], ["model.backbone.layer1.0.w", "model.head.w"]),
        ([{"backbone.": r"\1."}], [r"\1.layer1.0.w", "head.w"]),  # a prefix has no groups
        ([{"/(?i)BACKBONE\\./": ""}], ["layer1.0.w", "head.w"]),
    ],
)
def test_rules_rename_in_their_order(rename: list[dict[str, str]], expected: list[str]) -> None:
    assert names_after(["backbone.layer1.0.w", "head.w"], rename=rename) == expected


def test_a_prefix_is_no_regular_expression() -> None:
    assert names_after(["a.w", "ab.w"], rename=[{"a.": "c."}]) == ["c.w", "ab.w"]


@pytest.mark.parametrize("ignore", [["fc."], ["/^fc/"], ["/c\\.w$/"], ["/(?i)FC/"]])
def test_heads_are_left_out(ignore: list[str]) -> None:
    assert names_after(["a.w", "fc.w"], ignore=ignore) == ["a.w"]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (
            {"rename": [{"bakbone.": ""}]},
            r"rename: no tensor's name fits bakbone\.\. .*backbone\.a",
        ),
        ({"ignore": ["head."]}, r"ignore: no tensor's name fits head\."),
        ({"rename": [{"/^.*$/": "x"}]}, r"gives backbone\.a and backbone\.b the same name, x"),
    ],
)
def test_a_rule_that_finds_nothing_or_too_much(rules: Any, says: str) -> None:
    with pytest.raises(UserError, match=rf"weights\.pth: .*{says}"):
        names_after(["backbone.a", "backbone.b"], **rules)


# Fitting


STATE = {
    "stem.weight": torch.zeros(4, 3),
    "stem.bias": torch.zeros(4),
    "bn.running_mean": torch.zeros(4),
    "bn.num_batches_tracked": torch.tensor(0),
}


def fitted(changes: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[str]]:
    tensors = {name: tensor + 1 for name, tensor in STATE.items()} | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return fit(kept, STATE, "weights.pth (priors.files.mine)", "tiny")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"stem.weight": None, "stem.wait": torch.zeros(4, 3)},
            [r"lacks 1 of 4 tensors: stem\.weight \(nearest: stem\.wait\)", "left over: stem.wait"],
        ),
        ({"stem.bias": None}, [r"lacks 1 of 4 tensors: stem\.bias\n"]),
        ({"head.weight": torch.zeros(1)}, [r"has 1 left over: head\.weight", "`ignore`"]),
        (
            {"stem.bias": torch.zeros(5)},
            [r"another shape: stem\.bias is \(5,\), expected \(4,\)", "another encoder"],
        ),
        ({"stem.bias": torch.tensor([0, 0, float("nan"), 0])}, ["stem.bias has 1 of 4 values"]),
        (
            {"stem.weight": torch.full((4, 3), float("-inf"))},
            ["has 12 of 12 values that are NaN"],
        ),
        (
            {"stem.bias": torch.zeros(4, dtype=torch.int8)},
            [r"torch\.int8, expected .*float32"],
        ),
        ({"stem.bias": torch.zeros(4).to_sparse()}, ["stem.bias is sparse"]),
        # float64 has larger numbers than float32.
        ({"stem.bias": torch.full((4,), 1e300, dtype=torch.float64)}, ["4 of 4 values"]),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(UserError) as error:
        fitted(changes)
    assert str(error.value).startswith("weights.pth (priors.files.mine)")
    for part in says:
        error.match(part)


def test_many_names_are_cut_short() -> None:
    expected = {f"layer{number}.weight": torch.zeros(1) for number in range(30)}
    with pytest.raises(UserError, match=r"lacks 30 of 30 tensors: .* and 25 more") as error:
        fit({f"x.layer{n}.weight": torch.zeros(1) for n in range(30)}, expected, "w.pth", "tiny")
    assert "layer4.weight (nearest: x.layer4.weight)" in str(error.value)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(kind: torch.dtype) -> None:
    tensors, notes = fitted({name: STATE[name].to(kind) + 1.5 for name in list(STATE)[:2]})
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}
    assert torch.equal(tensors["stem.bias"], torch.full((4,), 1.5))
    assert notes == [f"2 tensors of {str(kind)[6:]} became float32"]


def test_old_files_lack_counters_of_batchnorm() -> None:
    tensors, notes = fitted({"bn.num_batches_tracked": None})
    assert torch.equal(tensors["bn.num_batches_tracked"], torch.tensor(0))
    assert notes == ["1 counters of BatchNorm that it lacks begin at zero"]


# The whole prior


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return build_encoder(ENCODER)[0].state_dict()


def test_a_foreign_checkpoint_becomes_a_prior(tmp_path: Path, state: Any) -> None:
    """Renamed, without its head, in half precision: the encoder starts from its numbers."""
    path = tmp_path / "foreign.pth"
    foreign = {f"backbone.{name.removeprefix('model.')}": t for name, t in state.items()}
    foreign = {n: t.half() if t.is_floating_point() else t for n, t in foreign.items()}
    torch.save({"state_dict": {**foreign, "head.fc.weight": torch.ones(2)}}, path)
    prior = declared(
        path, sha256=sha256_file(path), rename=[{"backbone.": "model."}], ignore=["head."]
    )
    made, notes = make_file_prior("mine", prior, tmp_path / "weights")
    assert made == tmp_path / "weights" / "mine.safetensors"
    floats = sum(tensor.is_floating_point() for tensor in state.values())
    assert notes == [
        f"all {len(state)} tensors of encoder {ENCODER} are in foreign.pth, 1 left out",
        f"{floats} tensors of float16 became float32",
    ]
    model = build_model("unet", ENCODER, dropout=0.0, patch_size=64)
    load_prior(model, made)
    for name, tensor in model.encoder.state_dict().items():
        wanted = state[name].half().float() if tensor.is_floating_point() else state[name]
        assert torch.equal(tensor, wanted), name
    record = read_json(made.with_suffix(".json"))
    assert record == {
        "prior": "mine",
        "source": "file foreign.pth",
        "revision": None,
        "source_sha256": sha256_file(path),
        "sha256": sha256_file(made),
        "encoder": ENCODER,
        "mean": [0.4] * 3,
        "std": [0.2] * 3,
        "licence": {"spdx": "CC-BY-4.0", "terms": "Weights under the licence CC-BY-4.0."},
        "declared": prior.decisive(),
    }
    first = made.read_bytes()
    assert make_file_prior("mine", prior, tmp_path / "again")[0].read_bytes() == first
    assert read_weights(made).keys() == state.keys()


def test_weights_that_share_memory_become_a_prior(tmp_path: Path, state: Any) -> None:
    """As tied weights do; safetensors refuses to write those."""
    names = [name for name in state if name.endswith("running_mean")]
    same_size = [n for n in names if state[n].shape == state[names[0]].shape]
    assert len(same_size) > 1
    tied = {**state, **dict.fromkeys(same_size, torch.full(state[names[0]].shape, 0.5))}
    path = tmp_path / "tied.pth"
    torch.save(tied, path)
    made, _ = make_file_prior("mine", declared(path, sha256=sha256_file(path)), tmp_path)
    tensors = read_weights(made)
    assert all(torch.equal(tensors[name], tied[name]) for name in tied)


def test_without_its_file_a_prior_that_was_made_before_is_kept(tmp_path: Path, state: Any) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    own = {"sha256": sha256_file(path)}
    made, _ = make_file_prior("mine", declared(path, **own), tmp_path)
    before = read_json(made.with_suffix(".json")), made.read_bytes()
    path.unlink()
    _, notes = make_file_prior("mine", declared(path, **own, licence="MIT"), tmp_path)
    assert notes == [f"{path} is not here; {made} was made of it before, and is kept"]
    after = read_json(made.with_suffix(".json"))
    assert after.pop("licence")["spdx"] == "MIT"
    assert (before[0] | after, made.read_bytes()) == before
    # Another declaration, or other weights, are not what was made.
    with pytest.raises(UserError, match="no such file"):
        make_file_prior("mine", declared(path, **own, ignore=["a"]), tmp_path)
    with pytest.raises(UserError, match="no such file"):
        make_file_prior("mine", declared(path, **own, encoder="resnet18"), tmp_path)
    made.write_bytes(b"other")
    with pytest.raises(UserError, match=r"no such file.*dvc pull .*mine\.safetensors"):
        make_file_prior("mine", declared(path, **own), tmp_path)


def test_a_model_of_this_program_is_no_file(tmp_path: Path) -> None:
    """Its tiles would not be compared with val and test."""
    path = tmp_path / "weights.pth"
    torch.save(TENSORS, path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(UserError, match=r"files\.mine\.file: .*recipe\.json .*priors\.models"):
        make_file_prior("mine", declared(path, sha256=sha256_file(path)), tmp_path)


def test_another_file_than_declared_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=r"priors\.files\.mine\.file: .*no such file.*dvc pull"):
        make_file_prior("mine", declared(path), tmp_path)
    torch.save(TENSORS, path)
    found = sha256_file(path)
    with pytest.raises(UserError, match=rf"priors\.files\.mine\.sha256: .*{found}, expected 000"):
        make_file_prior("mine", declared(path), tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_another_encoder_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(TENSORS, path)
    with pytest.raises(UserError, match=rf"does not hold the weights of encoder {ENCODER}"):
        make_file_prior("mine", declared(path, sha256=sha256_file(path)), tmp_path)
    assert list(tmp_path.iterdir()) == [path]


# The page


def of_sam(encoder: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A checkpoint as segment-anything and MobileSAM write it, which holds this image encoder."""
    names = {name: name for name in state}
    if encoder == "mobile_sam":
        # https://github.com/ChaoningZhang/MobileSAM, mobile_sam/modeling/tiny_vit_sam.py
        for name in names:
            other = re.sub(r"^model\.", "", name).replace(".conv.", ".c.")
            other = re.sub(r"^patch_embed\.conv1", "patch_embed.seq.0", other)
            other = re.sub(r"^patch_embed\.conv2", "patch_embed.seq.2", other)
            if merging := re.match(r"stages\.(\d)\.downsample(.*)", other):
                other = f"layers.{int(merging[1]) - 1}.downsample{merging[2]}"
            names[name] = other.replace("stages.", "layers.")
    checkpoint = {f"image_encoder.{names[name]}": tensor for name, tensor in state.items()}
    if encoder == "mobile_sam":
        heads = {"norm_head": torch.nn.LayerNorm(320), "head": torch.nn.Linear(320, 1000)}
        for head, module in heads.items():
            for name, tensor in module.state_dict().items():
                checkpoint[f"image_encoder.{head}.{name}"] = tensor
    prompt = PromptEncoder(256, (64, 64), (1024, 1024), 16)
    mask = MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(1, 256, 8, 64))
    for part, module in (("prompt_encoder", prompt), ("mask_decoder", mask)):
        checkpoint |= {f"{part}.{name}": each for name, each in module.state_dict().items()}
    return checkpoint


@pytest.mark.whole
@pytest.mark.parametrize("name", [pytest.param("sam_vit_l", marks=pytest.mark.slow), "mobile_sam"])
def test_checkpoints_of_sam_become_priors_by_the_page(name: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "priors.md").read_text()
    block = re.search(r"```yaml\n(priors:\n  files:\n.*?)```", page, re.DOTALL)
    assert block
    values = YAML(typ="safe").load(block[1])["priors"]["files"][name]
    torch.manual_seed(0)
    state = build_encoder(name)[0].state_dict()
    path = tmp_path / Path(values["file"]).name
    halves = {n: t.half() if t.is_floating_point() else t for n, t in of_sam(name, state).items()}
    torch.save(halves, path)
    prior = FilePrior.model_validate({**values, "file": str(path), "sha256": sha256_file(path)})
    made, _ = make_file_prior(name, prior, tmp_path)
    tensors = read_weights(made)
    assert tensors.keys() == state.keys()
    for each, tensor in state.items():
        wanted = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(tensors[each], wanted), each
