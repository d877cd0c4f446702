"""Make a prior of the hub or of a file: `python -m stages.own_prior NAME` writes weights/NAME.*."""

from __future__ import annotations

from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.terminal import ArgumentParser
from roofseg.recipe.parsing import read_params
from stages import run

WEIGHTS = Path("weights")


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.own_prior", description=__doc__)
    parser.add_argument("name", help="a prior under priors.hub or priors.files in params.yaml")
    name = parser.parse_args().name
    priors = read_params(Path("params.yaml")).priors
    if name in priors.hub:
        from roofseg.priors.hub import make_hub_prior  # torch: see `stages.run`

        _, notes = make_hub_prior(name, priors.hub[name], WEIGHTS)
    elif name in priors.files:
        from roofseg.priors.file import make_file_prior

        _, notes = make_file_prior(name, priors.files[name], WEIGHTS)
    else:
        raise UserError(
            f"prior: found {name!r}; expected one of priors.hub or priors.files in params.yaml: "
            f"{', '.join([*priors.hub, *priors.files]) or 'none'}"
        )
    for note in notes:
        print(f"{name}: {note}")


if __name__ == "__main__":
    run(main)
