"""YAML that is read, changed and written with its comments, order and quotes as they were."""

from __future__ import annotations

from ruamel.yaml import YAML, ScalarNode
from ruamel.yaml.representer import BaseRepresenter


def round_trip() -> YAML:
    """A reader and writer that leaves what is not changed as it was."""
    yaml = YAML()
    yaml.width = 4096
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _represent_null)
    return yaml


def _represent_null(representer: BaseRepresenter, _: None) -> ScalarNode:
    """Null as ``null``; ruamel.yaml would leave it out."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
