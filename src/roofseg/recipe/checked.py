"""The base class of all validated blocks of params.yaml."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Checked(BaseModel):
    """A frozen block: unknown keys, NaN, and booleans in place of numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject ``lr: true``, which pydantic would read as 1.0."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted is not bool:
            raise ValueError("expected a number or a word, not true or false")
        return value
