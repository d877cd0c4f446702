"""The studies in force: studies/studies.yaml, held against params.yaml."""

from __future__ import annotations

from pathlib import Path

from roofseg.core.errors import UserError
from roofseg.recipe.params import Params, read_params
from roofseg.studies.declaration import Studies, parse_studies, with_attempts

STUDIES = Path("studies/studies.yaml")
RECIPES = Path("studies/recipes")
RESULTS = Path("metrics/studies")


def read_studies() -> tuple[Studies, Params]:
    """Read and validate studies.yaml; gives the parameters too, with the attempts that only it has.

    Raises UserError naming the file, the key, what was found and what was expected.
    """
    try:
        text = STUDIES.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{STUDIES}: cannot be read ({error}). Copy one of studies/profiles/ there."
        ) from None
    params = read_params(Path("params.yaml"))
    studies = parse_studies(text, params, str(STUDIES))
    return studies, with_attempts(params, studies.attempts, source=str(STUDIES))
