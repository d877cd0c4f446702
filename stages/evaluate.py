"""Score one trained attempt: on val always, on test only where its recipe is final and committed.

``python -m stages.evaluate --attempt NAME`` is the stage evaluate@NAME.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from roofseg.device import resolve_device
from roofseg.evaluate import evaluate
from roofseg.models import RoofModel, build_model, load_model
from roofseg.patches import Patch, read_patches
from roofseg.recipe import Params
from roofseg.sealed import open_test
from stages import run
from stages.parameters import read_params, trained_digest

PATCHES = Path("patches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempt", required=True, help="its name in params.yaml")
    attempt = parser.parse_args().attempt
    params = read_params()
    splits = open_splits(params, attempt)
    scores = evaluate(
        trained_model(params, attempt),
        splits,
        predictions=Path("predictions") / attempt,
        results=Path("metrics") / "attempts" / attempt,
        device=resolve_device(params.device),
        batch_size=params.recipe(attempt).batch_size,
    )
    for split, found in scores.items():
        tiles = len(splits[split])
        print(f"{attempt}: {split} IoU {found['iou']:.4f}, F1 {found['f1']:.4f} ({tiles} tiles)")
    if "test" not in scores:
        print(
            f"{attempt}: test stays sealed: this recipe is not final. To open it, "
            f"`python -m stages.finalize {attempt}`, commit params.yaml, `dvc repro`."
        )


def open_splits(params: Params, attempt: str) -> dict[str, list[Patch]]:
    """The patches of val, and those of test if the trained recipe is final."""
    digest = trained_digest(params, attempt)
    splits = {"val": read_patches(PATCHES / "val")}
    test = open_test(
        PATCHES,
        attempt=attempt,
        digest=digest,
        final=params.final[attempt],
        model=Path("models") / attempt,
        dataset=params.dataset,
        ledger=Path("metrics") / "attempts" / attempt / "test_looks.csv",
        experiment=os.environ.get("DVC_EXP_NAME", ""),
    )
    return splits if test is None else {**splits, "test": test}


def trained_model(params: Params, attempt: str) -> RoofModel:
    recipe = params.recipe(attempt)
    model = build_model(
        recipe.architecture, recipe.encoder, dropout=recipe.dropout, patch_size=params.patch_size
    )
    load_model(Path("models") / attempt / "model.safetensors", model)
    return model


if __name__ == "__main__":
    run(main)
