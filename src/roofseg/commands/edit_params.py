"""Edit params.yaml and profiles as text: comments, order and quotes stay as they were.

What is written has the form that `dvc exp run -S` writes (lists as blocks, nothing for null), so
that a later `-S` changes the line of its key alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from roofseg.core.files import atomic_write
from roofseg.recipe.parsing import read_params

# The lists of tiles that stages bring: the key, a comment, and items as a block or in brackets.
LISTED_TILES = re.compile(r"^  (generated|downloaded):(?: *\[.*\])?(.*)\n(?: *- .*\n)*", re.M)


def derive_profile(base: Path, out: Path, dataset: str, patch_size: int) -> None:
    """Write the profile ``base``, adapted to ``dataset``, at ``out``; no attempt in it is final.

    ``patch_size`` is in pixels. Raises UserError if the result is not a valid profile.
    """
    yaml = _comment_preserving_yaml()
    # As text: ruamel.yaml loses line ends when it empties a list that has a comment.
    text = LISTED_TILES.sub(r"  \1: []\2\n", base.read_text(encoding="utf-8"))
    document = yaml.load(text)
    document["dataset"] = dataset
    if document["patch_size"] != patch_size:
        document["patch_size"] = patch_size
        document.yaml_add_eol_comment(
            "pixels, a multiple of 32; fits the smallest tile", "patch_size"
        )
    for attempt in document["final"]:
        document["final"][attempt] = None
    document.ca.comment = None  # the lines at the top, which describe the base
    with out.open("w", encoding="utf-8") as file:
        file.write(
            f"# The tiles of {dataset} with the recipe of {base}; made by `roofseg new-dataset`.\n"
            f"# Comments on the study and on GSD are about {base}.\n\n"
        )
        yaml.dump(document, file)
    read_params(out)


def set_final(path: Path, digests: Mapping[str, str | None]) -> None:
    """Write the digests of attempts, or nothing, under ``final`` in the parameters at ``path``."""
    yaml = _comment_preserving_yaml()
    document = yaml.load(path.read_text(encoding="utf-8"))
    document["final"].update(
        digests
    )  # digits alone, or digits around an "e", are written in quotes
    with atomic_write(path) as scratch:
        yaml.dump(document, scratch)


def _comment_preserving_yaml() -> YAML:
    yaml = YAML()
    yaml.width = 4096
    yaml.preserve_quotes = True
    return yaml
