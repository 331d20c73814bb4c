"""The base class of recipe sections: unknown keys are refused, types are strict, values are frozen."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ENDPOINT_MODEL, LOCAL_MODEL = "endpoint-model", "local-model"
NAMED_INTERVENTION, USER_INTERVENTION = "named-intervention", "user-intervention"
VERIFIABLE_PROMPTS, VALIDATION_PROMPTS = "verifiable-prompts", "validation-prompts"
UNION_TAGS = (
    ENDPOINT_MODEL, LOCAL_MODEL, NAMED_INTERVENTION, USER_INTERVENTION, VERIFIABLE_PROMPTS, VALIDATION_PROMPTS,
)  # fmt: skip
"""Tags of unions whose members are distinguished by their form; pydantic puts them into the location of an error."""


def Changeable(default: Any, **constraints: Any) -> Any:
    """Return a field that may change when a run is resumed, because it affects how results are computed, not which."""
    return Field(default, json_schema_extra={"may_change_on_resume": True}, **constraints)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())
