"""Score an attempt on val, and on test only if its recipe is final and committed."""

from __future__ import annotations

import os
from pathlib import Path

from roofseg.core.files import write_json, write_text
from roofseg.core.progress import track
from roofseg.core.run_states import remove_states_of
from roofseg.core.terminal import ArgumentParser
from roofseg.evaluation.evaluate import evaluate, headline
from roofseg.evaluation.model_card import card
from roofseg.evaluation.sealed_split import StaysSealed, full_tiles, open_test
from roofseg.patches import Patch, read_patches
from roofseg.recipe.digest import trained_digest
from roofseg.recipe.params import Params
from roofseg.recipe.parsing import read_params
from roofseg.recipe.split import read_split
from roofseg.results.ledger import count_looks
from roofseg.tiles.licence import read_licence
from roofseg.tiles.tile import TilePair
from stages import run, state_root

PATCHES = Path("patches")


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.evaluate", description=__doc__)
    parser.add_argument("--attempt", required=True, help="an attempt in params.yaml")
    attempt = parser.parse_args().attempt
    params = read_params(Path("params.yaml"))
    folder, dataset = Path("models") / attempt, Path("data") / params.dataset
    digest = trained_digest(params, attempt, dataset=dataset, model=folder)
    from roofseg.evaluation.costs import measure, time_inference  # torch: see `stages.run`
    from roofseg.inference.torch_predictor import load
    from roofseg.models.device import resolve_device

    # Opening test counts as a look, so everything that can fail without it comes first.
    predictor = load(folder, device=params.device, precision="32-true")
    # DVC has recorded the outputs of training by now, so the state of that run is not needed.
    remove_states_of(predictor.provenance["ROOFSEG_WEIGHTS_SHA256"], state_root(), attempt)
    results = Path("metrics") / "attempts" / attempt
    ledger = results / "test_looks.csv"
    recipe, split, licence = params.recipe(attempt), read_split(dataset), read_licence(dataset)
    splits = {"val": read_patches(PATCHES / "val")}
    model, size = predictor.model, params.patch_size
    costs = measure(model, recipe, weights=folder / "model.safetensors", patch_size=size)
    device, batch_size = resolve_device(params.device), recipe.batch_size
    times = time_inference(model, patch_size=size, device=device, batch_size=batch_size)
    tiles = {"val": tiles_of(splits["val"], params, folder)}
    try:
        splits["test"] = test_patches(params, attempt, digest, ledger)
        tiles["test"] = tiles_of(splits["test"], params, folder)
    except StaysSealed as reason:
        print(f"{attempt}: test stays sealed: {reason}")
    evaluation = evaluate(
        predictor,
        splits,
        tiles=tiles,
        predictions=Path("predictions") / attempt,
        results=results,
        batch_size=batch_size,
        progress=track,
    )
    write_json(Path("metrics") / f"{attempt}.json", headline(evaluation.scores))
    write_json(results / "costs.json", costs)
    write_json(results / "inference_times.json", times)
    looks = count_looks(ledger, params.dataset)
    text = card(folder, evaluation, looks=looks, split=split, licence=licence)
    write_text(results / "card.md", text)
    for name, scores in evaluation.scores.items():
        print(f"{attempt}: {name} IoU {scores['iou']:.4f}, F1 {scores['f1']:.4f}")


def tiles_of(patches: list[Patch], params: Params, model: Path) -> list[TilePair]:
    """The whole tiles to score; empty unless evaluate_full_tiles is set."""
    dataset, listing = Path("data") / params.dataset, PATCHES / "tiles.csv"
    chosen = patches if params.evaluate_full_tiles else []
    return full_tiles(chosen, dataset=dataset, listing=listing, model=model)


def test_patches(params: Params, attempt: str, digest: str, ledger: Path) -> list[Patch]:
    """Open the test split and record the look; StaysSealed if it may not be opened."""
    return open_test(
        PATCHES,
        attempt=attempt,
        digest=digest,
        final=params.final[attempt],
        model=Path("models") / attempt,
        dataset=params.dataset,
        ledger=ledger,
        experiment=os.environ.get("DVC_EXP_NAME", ""),
        # `dvc exp run --temp` and --queue run a copy of the project; DVC_ROOT is the original.
        copied=Path(os.environ.get("DVC_ROOT", ".")).resolve() != Path.cwd(),
    )


if __name__ == "__main__":
    run(main)
