"""Make a prior of a model: `python -m stages.model_prior NAME` writes weights/NAME.safetensors."""

from __future__ import annotations

from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.core.terminal import ArgumentParser
from roofseg.recipe.digest import trained_digest
from roofseg.recipe.parsing import read_params
from stages import run


def main() -> None:
    parser = ArgumentParser(prog="python -m stages.model_prior", description=__doc__)
    parser.add_argument("name", help="a prior under priors.models in params.yaml")
    name = parser.parse_args().name
    params = read_params(Path("params.yaml"))
    models = params.priors.models
    if name not in models:
        raise UserError(
            f"prior: found {name!r}; expected one of priors.models in params.yaml: "
            f"{', '.join(models) or 'none'}"
        )
    from roofseg.priors.model import make_model_prior  # torch: see `stages.run`

    declared, dataset = models[name], Path("data") / params.dataset
    digest, decisive = declared.recipe, params.declared_prior(name)
    if attempt := declared.attempt(params.attempts):
        digest = trained_digest(params, attempt, dataset=dataset, model=Path(declared.model))
    assert digest  # params.yaml was checked
    assert decisive
    make_model_prior(
        name,
        declared,
        Path("weights"),
        decisive=decisive,
        digest=digest,
        dataset=params.dataset,
        listing=Path("patches") / "tiles.csv",
        patch_size=params.patch_size,
    )


if __name__ == "__main__":
    run(main)
