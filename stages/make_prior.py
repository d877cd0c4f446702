"""Make one prior: `python -m stages.make_prior NAME` writes weights/NAME.safetensors and .json.

`priors` in params.yaml declares the priors. Those of the kind `models` are made by model_prior.
"""

from __future__ import annotations

from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.terminal import ArgumentParser
from roofseg.recipe.params import read_params
from stages import run

WEIGHTS = Path("weights")


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.make_prior", description=__doc__)
    parser.add_argument("name", help="a prior of params.yaml")
    name = parser.parse_args().name
    priors = read_params(Path("params.yaml")).priors
    # Each kind imports what only it needs: torch takes seconds, smp and timm take more.
    if name in priors.known:
        from roofseg.priors.catalogue import make_prior

        make_prior(name, WEIGHTS)
    elif name in priors.hub:
        from roofseg.priors.hub import make_hub_prior

        make_hub_prior(name, priors.hub[name], WEIGHTS)
    elif name in priors.files:
        from roofseg.priors.file import make_file_prior

        _, notes = make_file_prior(name, priors.files[name], WEIGHTS)
        for note in notes:
            print(f"{name}: {note}")
    else:
        raise UserError(
            f"prior: found {name!r}; expected one of priors in params.yaml (known, hub or files): "
            f"{', '.join([*priors.known, *priors.hub, *priors.files])}"
        )


if __name__ == "__main__":
    run(main)
