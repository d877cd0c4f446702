"""Check all of params.yaml, before anything depends on a part of it.

DVC reruns a stage when a key that it names changes, so nobody would look at a misspelt key. This
stage depends on the whole file; what it writes is always the same, so that nothing reruns after it.
"""

from __future__ import annotations

from pathlib import Path

from roofseg.encoders import ARCHITECTURES
from roofseg.errors import UserError
from roofseg.files import write_json
from roofseg.models.cnn import check_encoder
from stages import run
from stages.parameters import read_params


def main() -> None:
    params = read_params()
    for name, recipe in params.recipes().items():
        try:
            if not ARCHITECTURES[recipe.architecture]:
                check_encoder(recipe.encoder)
        except UserError as error:
            raise UserError(f"params.yaml: attempts.{name}.{error}") from None
    write_json(Path("metrics/params_check.json"), {"params.yaml": "valid"})


if __name__ == "__main__":
    run(main)
