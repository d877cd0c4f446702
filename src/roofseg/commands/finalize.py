"""Mark attempts as final: `dvc repro` then scores them on test.

Writes the recipe digest of each attempt into params.yaml, under `final`; comments there are kept.
The attempt's model must have been trained with exactly this recipe. Afterwards, commit params.yaml
and run `dvc repro`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from roofseg.commands.edit_params import set_final
from roofseg.commands.project import DATA, PARAMS
from roofseg.core.errors import UserError
from roofseg.recipe.digest import trained_digest
from roofseg.recipe.parsing import read_params


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "attempts", nargs="*", metavar="ATTEMPT", help="the name of an attempt in params.yaml"
    )
    parser.add_argument("--all", action="store_true", help="mark every attempt in params.yaml")
    parser.add_argument("--undo", action="store_true", help="mark the attempts as not final (null)")


def main(args: argparse.Namespace) -> None:
    params = read_params(PARAMS)
    names = list(params.attempts) if args.all else args.attempts
    if not names:
        raise UserError("no attempt is named. Name the attempts to finalize, or use --all.")
    for name in names:
        params.recipe(name)  # raises for an unknown attempt
    dataset, models = DATA / params.dataset, Path("models")
    digests = {
        name: None
        if args.undo
        else trained_digest(params, name, dataset=dataset, model=models / name)
        for name in names
    }
    set_final(PARAMS, digests)
    for name, digest in digests.items():
        print(f"final.{name}: {digest or 'null'}")
    effect = "closes" if args.undo else "opens"
    print(f"Commit {PARAMS}, then run `dvc repro`: test {effect} for these attempts.")
