"""Files and parameters that the stages of studies/dvc.yaml share."""

from __future__ import annotations

from pathlib import Path

from roofseg.recipe.params import Params
from roofseg.recipe.parsing import read_params
from roofseg.studies.declaration import SOURCE, Studies, read_studies

RECIPES = Path("studies/recipes")
RESULTS = Path("metrics/studies")
RECORDS = RESULTS / "runs"
PLOTS = Path("plots/studies")


def declared_studies() -> tuple[Studies, Params]:
    """Read studies.yaml, and params.yaml with the attempts that studies.yaml adds."""
    return read_studies(Path(SOURCE), read_params(Path("params.yaml")))
