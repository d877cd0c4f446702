"""Train one attempt: its patches and prior in, its best model and curves out.

``python -m stages.train --attempt NAME`` is the stage train@NAME. With ``--smoke`` it runs two
epochs on a handful of draws and writes nothing into the project.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from roofseg.engine import Trained, train
from roofseg.files import replaced, write_json
from roofseg.models import save_model
from roofseg.patches import read_crops, read_patches
from roofseg.recipe import Params, Recipe, inputs_hash
from stages import run
from stages.parameters import read_params, recipe_digest

PATCHES = Path("patches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempt", required=True, help="its name in params.yaml")
    parser.add_argument("--smoke", action="store_true", help="two short epochs, nothing written")
    args = parser.parse_args()
    params = read_params()
    recipe = params.recipe(args.attempt)
    if args.smoke:
        with tempfile.TemporaryDirectory() as folder:
            fit(params, args.attempt, recipe.shortened(), Path(folder))
        print("Smoke run finished: two epochs, nothing written.")
        return
    trained = fit(params, args.attempt, recipe, Path())
    write(params, args.attempt, recipe, trained)
    if trained.failure:
        raise trained.failure


def fit(params: Params, attempt: str, recipe: Recipe, out: Path) -> Trained:
    return train(
        recipe,
        attempt=attempt,
        train_patches=read_patches(PATCHES / "train"),
        val_patches=read_patches(PATCHES / "val"),
        prior=prior_file(recipe),
        machine=params.machine(),
        live=out / "metrics" / "attempts" / attempt / "live",
        overlays=out / "plots" / "training" / attempt,
    )


def prior_file(recipe: Recipe) -> Path:
    return Path("weights") / f"{recipe.prior}.safetensors"


def write(params: Params, attempt: str, recipe: Recipe, trained: Trained) -> None:
    name = recipe_digest(params, attempt)
    code = [
        Path(module.__file__)
        for key, module in list(sys.modules.items())
        if key.split(".")[0] in ("roofseg", "stages") and module.__file__
    ]
    record = {
        "attempt": attempt,
        "digest": name,
        "training_inputs": inputs_hash(
            name, [*code, Path(__file__), PATCHES / "train", PATCHES / "val", prior_file(recipe)]
        ),
        "dataset": params.dataset,
        "patch_size": params.patch_size,
        "gsd": sorted(read_crops(PATCHES / "train").gsd.dropna().unique().tolist()),
        "recipe": recipe.model_dump(mode="json"),
        "result": trained.record(),
    }
    metrics = Path("metrics") / "attempts" / attempt
    with replaced(Path("models") / attempt) as folder:
        save_model(folder / "model.safetensors", trained.model)
        write_json(folder / "recipe.json", record)
    write_json(metrics / "training.json", record)
    write_json(metrics / "times.json", trained.times())


if __name__ == "__main__":
    run(main)
