"""What every section of a recipe is: unknown keys are refused, types are strict, values are frozen."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def Runtime(default: Any, **constraints: Any) -> Any:
    """A field that may change on a started run, because it changes how and not what."""
    return Field(default, json_schema_extra={"runtime": True}, **constraints)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())
