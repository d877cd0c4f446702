"""The block ``priors`` of params.yaml: where the pretrained weights of each prior come from.

A prior has a name, and one of four kinds. `roofseg.priors` makes the files of the priors; this
module only checks how they are declared, and imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from roofseg.core.errors import UserError
from roofseg.recipe.architectures import PRIOR_ENCODERS, check_prior
from roofseg.recipe.checked import Checked
from roofseg.recipe.rules import check_form, check_patterns

# DVC refuses "/", "@" and spaces in the name of a stage's item, and reads 1 or 0x1f as numbers.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
STAGES = {"known": "prior", "hub": "hub", "files": "file", "models": "model"}
"""The stage of weights/dvc.yaml that makes the priors of each kind."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Channels = tuple[Fraction, Fraction, Fraction]
Deviations = tuple[Share, Share, Share]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Input(Checked):
    """The statistics of the images that an encoder was trained on, per RGB channel on [0, 1].

    Without them, the model has the statistics that its encoder's library states.
    """

    mean: Channels | None = None
    std: Deviations | None = None

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _on_one(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(v, int | float) and v > 1 for v in value):
            raise ValueError("expected values on [0, 1]: divide those of 8-bit images by 255")
        return value

    @model_validator(mode="after")
    def _both(self) -> _Input:
        if (self.mean is None) != (self.std is None):
            raise ValueError("expected both mean and std, or neither")
        return self

    @property
    def statistics(self) -> Statistics | None:
        """Mean and standard deviation; None if they are not declared."""
        return (self.mean, self.std) if self.mean and self.std else None


class HubPrior(_Input):
    """Weights of timm or smp, by name.

    Attributes:
        encoder: the encoder, as in an attempt; timm's may have a tag, as
            ``tu-convnext_tiny.fb_in22k``
        weights: which of smp's weights of this encoder, such as ``imagenet``; None for timm's
        licence: the licence of the weights; None for that which timm states
    """

    encoder: str
    weights: str | None = None
    licence: str | None = None

    def decisive(self) -> dict[str, Any]:
        """What a recipe digest covers, as JSON values: the weights and the model's input."""
        return {"hub": self.encoder, "weights": self.weights, **as_keys(self.statistics)}


class FilePrior(_Input):
    """A file of the user's.

    Attributes:
        file: safetensors or a checkpoint of torch; ``~`` is the home folder
        sha256: of the file. It identifies the weights, here and on other machines
        encoder: the encoder that the weights are for, as in an attempt
        key: where in a nested checkpoint its tensors are, such as ``state_dict``
        rename: how the file's names become the encoder's: rules with one key each, which is the
            beginning of a name or a /regular expression/, and whose value replaces it; every rule
            is applied, in this order (a list, since DVC does not see the order of a mapping)
        ignore: beginnings of names, or /regular expressions/, that are left out, such as heads
        licence: an SPDX identifier, or the terms in words
    """

    file: str = Field(min_length=1)
    encoder: str
    sha256: Sha256
    mean: Channels
    std: Deviations
    licence: str = Field(min_length=1)
    key: str | None = None
    rename: list[dict[str, str]] = Field(default_factory=list)
    ignore: list[str] = Field(default_factory=list)

    @property
    def rules(self) -> list[tuple[str, str]]:
        """The rules of ``rename``: what to replace, and by what."""
        return _pairs(self.rename)

    @field_validator("rename", mode="before")
    @classmethod
    def _has_an_order(cls, value: Any) -> Any:
        check_form(value)
        return value

    @field_validator("rename")
    @classmethod
    def _are_rules(cls, value: list[dict[str, str]]) -> list[dict[str, str]]:
        check_patterns(_pairs(value))
        return value

    @field_validator("ignore")
    @classmethod
    def _are_patterns(cls, value: list[str]) -> list[str]:
        check_patterns([(rule, "") for rule in value])
        return value

    def decisive(self) -> dict[str, Any]:
        """What a recipe digest covers, as JSON values: the weights and the model's input."""
        return {
            "sha256": self.sha256,
            "key": self.key,
            "rename": [list(rule) for rule in self.rules],
            "ignore": self.ignore,
            **as_keys(self.statistics),
        }


class ModelPrior(_Input):
    """A model that was trained by this project, or by another and brought with `dvc import`.

    Attributes:
        model: the folder in this project with model.safetensors, recipe.json and tiles.csv
        part: ``encoder``; or ``all`` for the decoder's weights too
        recipe: the digest of the model's recipe, if it is no attempt of this params.yaml
        licence: the licence of the weights; None for that of the model's own prior and dataset
    """

    model: str = Field(min_length=1)
    part: Literal["encoder", "all"] = "encoder"
    recipe: Annotated[str, Field(pattern="^[0-9a-f]{12}$")] | None = None
    licence: str | None = None

    @field_validator("model")
    @classmethod
    def _is_in_the_project(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or value.startswith("~") or ".." in path.parts:
            raise ValueError(
                "expected a folder in this project: bring the model there with `dvc import` "
                "(docs/priors.md)"
            )
        if path.parts in [(), ("models",), ("weights",)]:
            raise ValueError("expected the folder of one model, such as models/unet_imagenet")
        if path.parts[:1] in [("data",), ("patches",)]:
            raise ValueError(f"{path.parts[0]}/ holds tiles; expected the folder of a model")
        return value

    @field_validator("recipe", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            raise ValueError("expected text; YAML reads such digits as a number, so quote them")
        return value

    def attempt(self, attempts: Mapping[str, Any]) -> str | None:
        """The attempt whose model it is; None for a model that was brought."""
        path = PurePosixPath(self.model)
        return path.name if path.parts[:-1] == ("models",) and path.name in attempts else None


class Priors(Checked):
    """All priors by name; weights/dvc.yaml has a stage for each, and no others."""

    known: list[str]
    hub: dict[str, HubPrior]
    files: dict[str, FilePrior]
    models: dict[str, ModelPrior]

    def names(self) -> list[str]:
        """The names of all priors."""
        return [*self.known, *self.hub, *self.files, *self.models]

    def stage(self, name: str) -> str:
        """The stage of weights/dvc.yaml that makes a prior, such as ``prior@scratch``."""
        kind = next(kind for kind in STAGES if name in getattr(self, kind))
        return f"{STAGES[kind]}@{name}"

    def check(self, attempts: Mapping[str, Any]) -> None:
        """Raise UserError for a name that is unknown or taken, and for a model without its recipe.

        ``attempts`` are those of params.yaml.
        """
        for name in self.known:
            if name not in PRIOR_ENCODERS:
                raise UserError(
                    f"priors.known: found {name!r}; expected some of {', '.join(PRIOR_ENCODERS)}. "
                    "Declare other priors under hub, files or models (docs/priors.md)."
                )
        for kind in ("hub", "files", "models"):
            for name in getattr(self, kind):
                key = f"priors.{kind}.{name}"
                if not NAME.fullmatch(name):
                    raise UserError(
                        f"{key}: a name starts with a letter and holds only letters, digits, '_' "
                        "and '-' (DVC uses it as a stage's name)"
                    )
                if name in PRIOR_ENCODERS or self.names().count(name) > 1:
                    raise UserError(
                        f"{key}: another prior has this name"
                        f"{', which is reserved' if name in PRIOR_ENCODERS else ''}. Choose "
                        "another."
                    )

        for name, model in self.models.items():
            key, attempt = f"priors.models.{name}", model.attempt(attempts)
            if model.recipe is None and not attempt:
                raise UserError(
                    f"{key}.recipe: missing: {model.model} is the model of no attempt here. Write "
                    f"the `digest` that {model.model}/recipe.json has, in quotes."
                )
            for own in ("recipe", "mean", "std"):
                if attempt and getattr(model, own) is not None:
                    raise UserError(
                        f"{key}.{own}: has no effect, since {model.model} is the model of attempt "
                        f"{attempt}, whose recipe decides it. Remove this line."
                    )

    def check_use(self, name: str, encoder: str) -> None:
        """Raise UserError unless the prior ``name`` is in force and fits ``encoder``.

        Which encoder a model has is not declared, so this does not check it.
        """
        if name in PRIOR_ENCODERS:
            check_prior(name, encoder)
        if name not in self.names():
            others = ", ".join(dict.fromkeys([*self.names(), *PRIOR_ENCODERS]))
            raise UserError(
                f"prior: found {name!r}, which no stage makes: priors in params.yaml has "
                f"{', '.join(self.names()) or 'none'}. "
                + (
                    f"Add {name} to priors.known."
                    if name in PRIOR_ENCODERS
                    else f"Declare it there (docs/priors.md), or take one of {others}."
                )
            )
        found = self.hub.get(name) or self.files.get(name)
        if found:
            check_same(name, "encoder", found.encoder, encoder)


def check_same(name: str, key: str, held: str | None, wanted: str) -> None:
    """Raise UserError if the prior ``name`` holds weights of another model than an attempt has.

    ``key`` is encoder or architecture; ``held`` is that of the prior, None if it fits any.
    """
    if held not in (None, wanted):
        raise UserError(
            f"prior: found {name!r}, which holds weights of {key} {held}, with {key} {wanted}. "
            f"Make the two equal{', or set `part: encoder`' if key == 'architecture' else ''}."
        )


def check_moved(values: Mapping[str, Any], source: str) -> None:
    """Raise UserError for ``sources.priors``, where older files list the priors.

    ``values`` are those of the file ``source``.
    """
    sources = values.get("sources")
    if isinstance(sources, Mapping) and "priors" in sources and "priors" not in values:
        listed = ", ".join(map(str, sources["priors"] or []))
        raise UserError(
            f"{source}: sources.priors: this key has moved. Remove the line, and add these lines "
            "at the top level (docs/priors.md):\n"
            f"priors:\n  known: [{listed}]\n  hub: {{}}\n  files: {{}}\n  models: {{}}"
        )


def as_keys(statistics: Statistics | None) -> dict[str, list[float]]:
    """Statistics as the keys mean and std; no keys without statistics."""
    return {"mean": [*statistics[0]], "std": [*statistics[1]]} if statistics else {}


def _pairs(rename: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [pair for rule in rename for pair in rule.items()]
