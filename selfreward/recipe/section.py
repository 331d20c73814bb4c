"""What every section of a recipe is: unknown keys are refused, types are strict, values are frozen."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ENDPOINT_MODEL, LOCAL_MODEL = "endpoint-model", "local-model"
NAMED_INTERVENTION, OWN_INTERVENTION = "named-intervention", "own-intervention"
UNION_TAGS = (ENDPOINT_MODEL, LOCAL_MODEL, NAMED_INTERVENTION, OWN_INTERVENTION)
"""Members of unions that are told apart by their form; pydantic puts these into the place of an error."""


def Runtime(default: Any, **constraints: Any) -> Any:
    """A field that may change on a started run, because it changes how and not what."""
    return Field(default, json_schema_extra={"runtime": True}, **constraints)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())
