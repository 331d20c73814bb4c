"""The base class of recipe sections: unknown keys are refused, types are strict, values are frozen."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

ENDPOINT_MODEL, LOCAL_MODEL = "endpoint-model", "local-model"
NAMED_INTERVENTION, USER_INTERVENTION = "named-intervention", "user-intervention"
VERIFIABLE_PROMPTS, VALIDATION_PROMPTS = "verifiable-prompts", "validation-prompts"
UNION_TAGS = (
    ENDPOINT_MODEL, LOCAL_MODEL, NAMED_INTERVENTION, USER_INTERVENTION, VERIFIABLE_PROMPTS, VALIDATION_PROMPTS,
)  # fmt: skip
"""Tags of unions whose members are distinguished by their form; pydantic puts them into the location of an error."""


def Changeable(default: Any = ..., **constraints: Any) -> Any:
    """Return a field that may change when a run is resumed, because it affects how results are computed, not which."""
    return Field(default, json_schema_extra={"may_change_on_resume": True}, **constraints)


def _auto_or_number(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f"found {value!r}; allowed are auto and whole numbers from 1; correct it")


AutoOrNumber = Annotated[Literal["auto"] | int, PlainValidator(_auto_or_number)]
"""A whole number from 1, or `auto`. One validator: a union would answer a wrong value with one message a member."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())
