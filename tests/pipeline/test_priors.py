"""Priors of every kind in whole pipelines, and the page that tells how to declare them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from graph import ROOT
from local_hub import serving
from project import Project
from safetensors.torch import save
from worked_examples import BLOCK, edit, sample_on_tiny_tiles, steps

from roofseg.core.files import sha256_file
from roofseg.core.weights import read_weights
from roofseg.inference.torch_predictor import load
from roofseg.models.roof_model import build_encoder

PAGE = (ROOT / "docs" / "priors.md").read_text()
ENCODER = "tu-mobilenetv3_small_050"


@pytest.mark.whole
def test_a_foreign_file_becomes_an_attempt_by_the_page_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every edit and command of docs/priors.md works, and prints the lines that it shows."""
    project = sample_on_tiny_tiles(tmp_path, monkeypatch)
    home = tmp_path / "home"
    home.mkdir()
    shown = re.search(r"\b[0-9a-f]{64}\b", PAGE)
    assert shown
    sha256 = shown[0]  # of the file that the page's program makes; other versions make another
    for kind, text in BLOCK.findall(PAGE):
        text = text.replace("/home/ana", str(home)).replace(shown[0], sha256)
        if kind == "python":
            (tmp_path / "make_file.py").write_text(text)
            project.run("python ../make_file.py")
            sha256 = sha256_file(home / "weights" / "resnet50_city.pth")
        elif kind == "diff":
            edit(project.folder, text)
        else:
            for command, printed in steps(text):
                done = project.run(command, check=False)
                failed = any(line.startswith("error: ") for line in printed)
                assert bool(done.returncode) == failed, f"{command}\n{done.stdout}{done.stderr}"
                found = [*done.stdout.splitlines(), *done.stderr.splitlines()]
                missing = [line for line in printed if line != "..." and line not in found]
                assert not missing, f"{command} did not print {missing}:\n{found}"
    trained = torch.load(home / "weights" / "resnet50_city.pth", weights_only=True)["state_dict"]
    prior = read_weights(project.folder / "weights" / "resnet50_city.safetensors")
    assert all(torch.equal(prior[name], trained[f"backbone.{name}"]) for name in prior)
    card = (project.folder / "metrics" / "attempts" / "unet_city" / "card.md").read_text()
    assert f"`resnet50_city`: file resnet50_city.pth, SHA-256 `{sha256}`" in card
    assert "Weights of our own, trained on imagery of the city." in card


ATTEMPTS = f"""\
attempts:
  downloaded:
    architecture: unet
    encoder: {ENCODER}.lamb_in1k
    prior: lamb
  continued:
    architecture: unet
    encoder: {ENCODER}.lamb_in1k
    prior: whole
    epochs: 1
"""
PRIORS = f"""\
priors:
  known: [scratch]
  hub:
    lamb:
      encoder: {ENCODER}.lamb_in1k
      mean: [0.1, 0.2, 0.3]
      std: [0.4, 0.5, 0.6]
  files: {{}}
  models:
    whole:
      model: models/downloaded
      part: all
"""
BROUGHT = """\
  models:
    whole:
      model: weights/brought
      recipe: {digest}
      mean: [0.1, 0.2, 0.3]
      std: [0.4, 0.5, 0.6]
      part: all
"""


def record_of(project: Project, attempt: str) -> dict:
    return json.loads((project.folder / "models" / attempt / "recipe.json").read_text())


@pytest.mark.whole
def test_a_model_continues_from_another_that_began_with_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole chain is trained, recorded and on the card; test tiles that it saw are refused."""
    weights = timm.create_model("mobilenetv3_small_050", pretrained=False).state_dict()
    project = Project.create(tmp_path / "project")
    project.replace(
        "params.yaml", "priors: {known: [scratch], hub: {}, files: {}, models: {}}\n", PRIORS
    )
    project.replace("params.yaml", "attempts:\n", ATTEMPTS)
    project.replace("params.yaml", "final:\n", "final:\n  downloaded: null\n  continued: null\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        hub.files["timm/mobilenetv3_small_050.lamb_in1k", "model.safetensors"] = (
            "c" * 40,
            save(weights),
        )
        project.run("dvc repro evaluate@continued")
        project.commit("results, with the records of the priors")
        asked = len(hub.asked)
        again = project.run("dvc repro evaluate@continued").stdout
        assert "Running stage" not in again
        assert len(hub.asked) == asked

    first, second = (record_of(project, name) for name in ("downloaded", "continued"))
    assert first["prior"]["revision"] == "c" * 40
    assert second["recipe"]["declared"]["recipe"] == first["recipe"]
    assert second["prior"]["model"]["digest"] == first["digest"]
    assert second["prior"]["model"]["prior"] == first["prior"]
    # The statistics of the hub's weights are the model's, along the chain.
    mean = load(project.folder / "models" / "continued", device="cpu").model.mean
    assert mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    seen = pd.read_csv(project.folder / "models" / "continued" / "tiles.csv")
    assert seen.tile.tolist() == ["a", "b", "c"] * 2  # those of the earlier model, and its own
    card = (project.folder / "metrics" / "attempts" / "continued" / "card.md").read_text()
    assert f"the dataset tiny with the recipe `{first['digest']}`, SHA-256" in card
    assert "- `lamb`: timm/mobilenetv3_small_050.lamb_in1k/model.safetensors on huggingf" in card
    # The decoder was taken too: after one epoch at most it is near the earlier model's.
    assert (
        read_weights(project.folder / "weights" / "whole.safetensors").keys()
        == read_weights(project.folder / "models" / "downloaded" / "model.safetensors").keys()
    )

    # The model of another project whose train is test here.
    other = project.copy(tmp_path / "another project")
    project.run(f"dvc import -q '{other.folder}' models/downloaded -o weights/brought")
    declared = "  models:\n    whole:\n      model: models/downloaded\n      part: all\n"
    project.replace("params.yaml", declared, BROUGHT.format(digest=first["digest"]))
    project.run("dvc repro weights/dvc.yaml:model@whole")
    project.replace("data/tiny/split.csv", "a,train", "a,test")
    project.replace("data/tiny/split.csv", "d,test", "d,train")
    refused = project.run("dvc repro train@continued", check=False)
    assert refused.returncode
    assert "a (train of tiny) and a (test here) are the same image" in refused.stderr
    assert "Running stage 'train@continued'" not in refused.stdout


OF_A_FILE = """\
  files:
    mine:
      file: {file}
      sha256: {sha256}
      encoder: {encoder}
      mean: [0.4, 0.4, 0.4]
      std: [0.2, 0.2, 0.2]
      licence: MIT
      rename: [{{a.: b.}}, {{b.: model.}}]
"""


@pytest.mark.whole
def test_a_machine_without_the_file_needs_only_dvc_pull(tmp_path: Path) -> None:
    """Also after a change of the code; and DVC sees a new order of rules."""
    file, stage = tmp_path / "weights.pth", "weights/dvc.yaml:file@mine"
    state = build_encoder(ENCODER)[0].state_dict()
    torch.save({f"a.{name.removeprefix('model.')}": state[name] for name in state}, file)
    project = Project.create(tmp_path / "project")
    declared = OF_A_FILE.format(file=file, sha256=sha256_file(file), encoder=ENCODER)
    project.replace(
        "params.yaml",
        "priors: {known: [scratch], hub: {}, files: {}, models: {}}\n",
        f"priors:\n  known: [scratch]\n  hub: {{}}\n  models: {{}}\n{declared}",
    )
    project.run(f"dvc remote add -d there '{tmp_path / 'remote'}'")
    project.run(f"dvc repro {stage}")
    project.commit("a prior of a file")
    project.run("dvc push -q weights/mine.safetensors")
    weights = (project.folder / "weights" / "mine.safetensors").read_bytes()

    file.unlink()
    clone = project.clone(tmp_path / "clone")
    clone.run("dvc pull -q weights/mine.safetensors")
    assert "Running stage" not in clone.run(f"dvc repro {stage}").stdout
    code = clone.folder / "src" / "roofseg" / "priors" / "file.py"
    code.write_text(f"{code.read_text()}# changed\n")
    again = clone.run(f"dvc repro {stage}").stdout
    assert f"mine: {file} is not here; weights/mine.safetensors was made of it before" in again
    assert (clone.folder / "weights" / "mine.safetensors").read_bytes() == weights
    assert clone.run("git status --porcelain weights/mine.json").stdout == ""

    clone.replace("params.yaml", "[{a.: b.}, {b.: model.}]", "[{b.: model.}, {a.: b.}]")
    assert "modified" in clone.run(f"dvc status {stage}").stdout
    refused = clone.run(f"dvc repro {stage}", check=False)
    assert "weights.pth: no such file" in refused.stderr
