"""`launch.ray`: the Ray cluster on which several engines compute."""

import re

from pydantic import field_validator

from selfreward.recipe.section import Changeable, Section


class RaySection(Section):
    """`address`: null starts Ray on this machine where several engines are needed; `auto` is the cluster that runs on
    this machine, HOST:PORT one whose nodes include this machine. `nodes`: how many nodes it must have before an engine
    starts."""

    address: str | None = Changeable(None)
    nodes: int = Changeable(1, ge=1)

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and value != "auto" and not re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[\w.-]+):\d{1,5}", value):
            raise ValueError(
                f"found {value!r}; allowed are null, auto and HOST:PORT, such as 10.0.0.1:6379; with ray:// "
                "the run would not be on a node of the cluster: run the command there, with auto"
            )
        return value
