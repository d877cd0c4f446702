"""The spread over seeds of each attempt: the seeds study writes it, the leaderboard shows it.

The file is in git and is not an output of a stage. If it were one, the leaderboard would depend on
the study, and a plain `dvc repro` would run it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roofseg.core.errors import UserError
from roofseg.recipe.digest import DIGEST_LENGTH, inputs_hash

COLUMNS = (
    "dataset", "patch_size", "attempt", "seeds", "val_iou", "sd", "overrides", "recipe",
)  # fmt: skip
"""``recipe`` is the `digest_without_seed`; the other columns are for readers and `SeedSpread`."""


@dataclass(frozen=True)
class SeedSpread:
    """How much the val IoU of an attempt varies over trainings that differ only in their seed.

    Attributes:
        seeds: the number of trainings, at least 2.
        val_iou: mean over seeds of the val IoU, [0, 1].
        sd: standard deviation of the val IoU over seeds, [0, 1].
        overrides: the values that replaced those of the recipe (`overrides_text`).
    """

    seeds: int
    val_iou: float
    sd: float
    overrides: str


def overrides_text(overrides: Mapping[str, Any]) -> str:
    """Write a study's overrides for readers, such as ``epochs 6, draws_per_epoch 24``."""
    return ", ".join(f"{key} {value}" for key, value in overrides.items())


def digest_without_seed(recipe: Mapping[str, Any], overrides: str) -> str:
    """Hash everything that decides the spread over seeds: a recipe without seed and overrides.

    Args:
        recipe: `roofseg.recipe.digest.recipe_of` of an attempt.
        overrides: `overrides_text` of the study; its keys are left out.
    """
    left_out = {"seed", *(part.split()[0] for part in overrides.split(",") if part)}
    kept = {key: value for key, value in recipe.items() if key not in left_out}
    return inputs_hash(json.dumps(kept, sort_keys=True), [])[:DIGEST_LENGTH]


def read_seed_spread(path: Path, recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, SeedSpread]:
    """Read the spread of the attempts for which it was measured with these recipes.

    Args:
        path: the file that the seeds study writes, with `COLUMNS`.
        recipes: `roofseg.recipe.digest.recipe_of` of each attempt.

    Returns:
        The spread by attempt. Rows of other attempts and of other recipes are left out.

    Raises:
        UserError: the file is missing or damaged; the message says how to restore it.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        rows = _parse(lines)
    except FileNotFoundError:
        problem = "no such file"
    except (ValueError, csv.Error) as error:
        problem = str(error)
    else:
        return {
            attempt: spread
            for attempt, digest, spread in rows
            if attempt in recipes
            and digest == digest_without_seed(recipes[attempt], spread.overrides)
        }
    raise UserError(
        f"{path}: {problem}. Restore the committed file with `git checkout {path}`. If the seeds "
        "study was run here, `dvc repro --force --single-item studies/dvc.yaml:gather@seeds` "
        "writes it again."
    )


def _parse(lines: Iterable[list[str]]) -> list[tuple[str, str, SeedSpread]]:
    """The attempt, digest and spread of each row; ValueError says what was found and expected."""
    header, *rows = [*lines] or [[]]
    if tuple(header) != COLUMNS:
        raise ValueError(f"found the columns {','.join(header)!r}; expected {','.join(COLUMNS)!r}")
    parsed = []
    for line, cells in enumerate(rows, 2):
        try:
            _, _, attempt, seeds, val_iou, sd, overrides, digest = cells
            spread = SeedSpread(int(seeds), float(val_iou), float(sd), overrides)
            if spread.seeds < 2 or not (0 <= spread.val_iou <= 1 and 0 <= spread.sd <= 1):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"line {line}: found {','.join(cells)!r}; expected {len(COLUMNS)} cells, with at "
                "least 2 seeds, and val_iou and sd between 0 and 1"
            ) from None
        parsed.append((attempt, digest, spread))
    return parsed
