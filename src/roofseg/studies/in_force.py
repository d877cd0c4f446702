"""The studies in force: the lists from which studies/dvc.yaml makes its stages.

studies.yaml declares several studies, and most projects run none or one of them. DVC reports stages
that never ran as changed, and misses their outputs. So it reads in_force.yaml, which `roofseg
studies` writes and which names only what was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, SequenceNode
from ruamel.yaml.representer import RoundTripRepresenter

from roofseg.core.errors import UserError
from roofseg.core.files import atomic_write
from roofseg.recipe.params import Params
from roofseg.recipe.parsing import parse_mapping
from roofseg.studies.declaration import STUDY_NAMES, Folds, Studies

NONE: Mapping[str, Any] = {
    "gathered": [],
    "pages": [],
    "recipes": {},
    "divisions": {},
    "studies": {
        "budget": {"attempt": [], "tiles": [], "seed": []},
        "seeds": {"attempt": [], "seed": []},
        "augmentation": {"attempt": [], "augmentation": [], "seed": []},
        "folds": {"attempt": [], "fold": []},
    },
}
"""The lists when no study is in force."""
IN_FORCE = "studies/in_force.yaml"
HEADER = """\
# What `roofseg studies` was asked for. DVC has stages for the studies in this file and for no
# others. To change a study, edit studies.yaml and run `roofseg studies NAME` again. `roofseg
# studies none` empties this file.
"""


def stage_lists(
    studies: Studies, params: Params, names: Collection[str], page: bool
) -> dict[str, Any]:
    """The lists of studies/dvc.yaml for the studies ``names``.

    Args:
        studies: all studies.
        params: the parameters, with the attempts of studies.yaml.
        names: the studies in force.
        page: whether their page is in force too.

    Returns:
        gathered: the names; pages: ``["report"]`` or nothing; recipes: the prior of every attempt
        that these studies train; divisions: the number of folds and the seed of the study that has
        folds; studies: the axes of every study, empty if it is not in force.
    """
    in_force = {name: studies.study(name) for name in STUDY_NAMES if name in names}
    trained = dict.fromkeys(a for study in in_force.values() for a in study.attempts)
    axes = {
        name: {axis: list(values) for axis, values in study.axes().items()}
        for name, study in in_force.items()
    }
    return {
        "gathered": list(in_force),
        "pages": ["report"] if page else [],
        "recipes": {attempt: params.recipe(attempt).prior for attempt in trained},
        "divisions": {
            name: {"folds": study.folds, "seed": study.seed}
            for name, study in in_force.items()
            if isinstance(study, Folds)
        },
        "studies": {**NONE["studies"], **axes},
    }


def read_lists(path: Path) -> dict[str, Any]:
    """The lists in the file; UserError if it cannot be read or names what is no study."""
    remedy = "`roofseg studies none` makes it anew, with no study in force."
    try:
        lists = dict(parse_mapping(path.read_text(encoding="utf-8"), str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). {remedy}") from None
    except UserError as error:
        raise UserError(f"{error}. {remedy}") from None
    for key, known in (("gathered", STUDY_NAMES), ("pages", ("report",))):
        found = lists.get(key)
        if not isinstance(found, list) or not {*map(str, found)} <= {*known}:
            raise UserError(
                f"{path}: {key}: found {found!r}; expected a list with any of {', '.join(known)}. "
                f"{remedy}"
            )
    return lists


def write_lists(path: Path, lists: Mapping[str, Any]) -> None:
    """Write the lists as YAML, with a comment that says what they are."""
    yaml = YAML()
    yaml.Representer = _InOneLine
    with atomic_write(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        file.write(HEADER)
        yaml.dump(dict(lists), file)


class _InOneLine(RoundTripRepresenter):
    """Writes lists in one line. A class of its own: ruamel.yaml keeps representers in the class,
    and DVC's edits of params.yaml use the original one."""

    def represent_items(self, items: list[Any]) -> SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_InOneLine.add_representer(list, _InOneLine.represent_items)


def check_lists(path: Path, studies: Studies, params: Params) -> None:
    """Raise UserError unless the lists in the file are those of the declared studies."""
    lists = read_lists(path)
    if lists != stage_lists(studies, params, lists["gathered"], bool(lists["pages"])):
        raise UserError(
            f"{path}: not what studies.yaml and params.yaml declare now. "
            f"`roofseg studies {next(iter(lists['gathered']), 'NAME')}` brings it up to date."
        )
