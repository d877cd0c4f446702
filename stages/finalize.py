"""Mark attempts as final: write their recipe digest into params.yaml, keeping its comments.

``python -m stages.finalize unet_imagenet ...`` or ``--all``; ``--undo`` puts null back. An
attempt's test split opens once its digest is committed: commit, then ``dvc repro``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write
from roofseg.recipe.digest import trained_digest
from roofseg.recipe.params import read_params
from stages import run
from stages.round_trip import round_trip

PARAMS = Path("params.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attempts", nargs="*", help="names in params.yaml")
    parser.add_argument("--all", action="store_true", help="all attempts")
    parser.add_argument("--undo", action="store_true", help="set them back to null")
    args = parser.parse_args()
    params = read_params(PARAMS)
    names = list(params.attempts) if args.all else args.attempts
    if not names:
        raise UserError("name the attempts to finalize, or say --all")
    for name in names:
        params.recipe(name)  # raises for an unknown one
    dataset, models = Path("data") / params.dataset, Path("models")
    values = {
        name: None
        if args.undo
        else trained_digest(params, name, dataset=dataset, model=models / name)
        for name in names
    }

    yaml = round_trip()
    document = yaml.load(PARAMS.read_text(encoding="utf-8"))
    for name, value in values.items():
        # Quoted, since digits alone, or digits around an "e", would be read as a number.
        document["final"][name] = value and DoubleQuotedScalarString(value)
        print(f"final.{name}: {value or 'null'}")
    with atomic_write(PARAMS) as path:
        yaml.dump(document, path)
    then = "closes" if args.undo else "opens"
    print(f"Commit params.yaml, then run `dvc repro`: test {then} for them.")


if __name__ == "__main__":
    run(main)
