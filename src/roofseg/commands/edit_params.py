"""Edit params.yaml and profiles as text: comments, order and quotes stay as they were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML, ScalarNode
from ruamel.yaml.representer import BaseRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from roofseg.core.files import atomic_write
from roofseg.recipe.params import read_params


def derive_profile(base: Path, out: Path, dataset: str, patch_size: int) -> None:
    """Write the profile ``base``, adapted to ``dataset``, at ``out``; no attempt in it is final.

    ``patch_size`` is in pixels. Raises UserError if the result is not a valid profile.
    """
    yaml = _comment_preserving_yaml()
    document = yaml.load(base.read_text(encoding="utf-8"))
    document["dataset"] = dataset
    document["sources"]["generated"].clear()
    document["sources"]["downloaded"].clear()
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
    """Write the digests of attempts, or null, under ``final`` in the parameters at ``path``."""
    yaml = _comment_preserving_yaml()
    document = yaml.load(path.read_text(encoding="utf-8"))
    for name, digest in digests.items():
        # Quoted: YAML would read digits alone, or digits around an "e", as a number.
        document["final"][name] = digest and DoubleQuotedScalarString(digest)
    with atomic_write(path) as scratch:
        yaml.dump(document, scratch)


def _comment_preserving_yaml() -> YAML:
    yaml = YAML()
    yaml.width = 4096
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _represent_null)
    return yaml


def _represent_null(representer: BaseRepresenter, _: None) -> ScalarNode:
    """Write null as ``null``; ruamel.yaml would leave it out."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
