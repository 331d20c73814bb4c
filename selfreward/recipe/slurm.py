"""`launch.slurm`: the batch job that `selfreward submit` makes of a recipe."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from selfreward.recipe.paths import InputPath, NameOrPath
from selfreward.recipe.section import Changeable, Section

_OWN_OPTIONS: Final = {
    "--job-name": "name",
    "-J": "name",
    "--output": "output_dir",
    "-o": "output_dir",
    "--error": "output_dir",
    "-e": "output_dir",
    "--open-mode": "output_dir",
    "--signal": "launch.slurm.signal_s",
    "--time": "launch.slurm.time",
    "-t": "launch.slurm.time",
    "--nodes": "launch.slurm.nodes",
    "-N": "launch.slurm.nodes",
}
"""Options that the program relies on, and the key that sets each."""
_SECRET: Final = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
_MARGIN_S: Final = 60
"""Slurm sends the signal before a limit up to this much earlier than it is asked to."""


def _one_line(value: str) -> str:
    if found := [c for c in value if not c.isprintable() or c == "\\"]:
        raise ValueError(
            f"found {value!r}, which contains {found[0]!r}; a line of #SBATCH takes printable characters without "
            "backslashes; remove it"
        )
    return value


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("contains a NUL character, which no shell takes; remove it")
    return value


OptionText = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
"""A text in a line of #SBATCH."""
ShellText = Annotated[str, AfterValidator(_no_nul)]
_Texts = Annotated[list[Annotated[ShellText, Field(min_length=1)]], BeforeValidator(_as_list)]


class ApptainerSection(Section):
    """`image`: a .sif file (a path begins with ./, / or ~) or an address such as docker://...; `binds`: FROM:TO."""

    kind: Literal["apptainer"] = Changeable()
    image: Annotated[NameOrPath, AfterValidator(_no_nul)] = Changeable(min_length=1)
    binds: _Texts = Changeable(default_factory=list)


class EnrootSection(Section):
    """Enroot by Slurm's plugin pyxis. `image`: a .sqsh file or an address such as nvcr.io#...; `mounts`: FROM:TO."""

    kind: Literal["enroot"] = Changeable()
    image: Annotated[NameOrPath, AfterValidator(_no_nul)] = Changeable(min_length=1)
    mounts: _Texts = Changeable(default_factory=list)


class SlurmSection(Section):
    """What `selfreward submit` asks of Slurm; a key that is not set is left to the cluster.

    `gpus` is per node, `cpus` those of the program, `memory` per node. `modules` are loaded, `environment` is exported,
    `environment_file` is read (for secrets, which no recipe may contain), then the lines of `setup` are run, all before
    the program. `extra`: options of sbatch. `template`: a script of one's own (docs/clusters.md). `max_restarts`: how
    often the job may start again. `signal_s`: seconds before the time limit at which the program stops.
    """

    partition: OptionText | None = Changeable(None)
    account: OptionText | None = Changeable(None)
    qos: OptionText | None = Changeable(None)
    nodes: int = Changeable(1, ge=1)
    gpus: int = Changeable(0, ge=0)
    cpus: int | None = Changeable(None, ge=1)
    memory: Annotated[str, BeforeValidator(_as_text)] | None = Changeable(None, pattern=r"^[1-9][0-9]*[KMGT]?$|^0$")
    time: Annotated[str, BeforeValidator(_as_text)] | None = Changeable(None)
    constraint: OptionText | None = Changeable(None)
    modules: _Texts = Changeable(default_factory=list)
    container: Annotated[ApptainerSection | EnrootSection, Field(discriminator="kind")] | None = Changeable(None)
    environment: dict[str, Annotated[ShellText, BeforeValidator(_as_text)]] = Changeable(default_factory=dict)
    environment_file: InputPath | None = Changeable(None)
    setup: _Texts = Changeable(default_factory=list)
    extra: list[OptionText] = Changeable(default_factory=list)
    template: InputPath | None = Changeable(None)
    max_restarts: int = Changeable(100, ge=0)
    signal_s: int = Changeable(120, ge=10)

    @field_validator("extra")
    @classmethod
    def _are_options(cls, value: list[str]) -> list[str]:
        for option in value:
            if not re.match(r"--?[A-Za-z]", option):
                raise ValueError(
                    f"found {option!r}; options of sbatch are allowed, such as --mail-type=END; correct it"
                )
            if key := _OWN_OPTIONS.get(re.split(r"[=\s]", option)[0]):
                raise ValueError(f"found {option!r}, which the program writes itself; set {key} instead")
        return value

    @field_validator("environment")
    @classmethod
    def _are_variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"found {name!r}; letters, digits and _ are allowed in a name; correct it")
            if _SECRET.search(name):
                raise ValueError(
                    f"{name} looks like a secret, and recipes are stored in the run folder and in reports; write "
                    f"{name}=... to a file that only you can read, and set environment_file to its path"
                )
        return value

    @field_validator("time")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None and seconds_of(value) is None:
            raise ValueError(
                f"found {value!r}; Slurm's forms are allowed: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM and D-HH:MM:SS; "
                "for four hours write 04:00:00"
            )
        return value

    @model_validator(mode="after")
    def _signal_is_within_the_time(self) -> "SlurmSection":
        limit = seconds_of(self.time) if self.time else None
        if limit is not None and limit <= self.signal_s + _MARGIN_S:
            raise ValueError(
                f"time is {self.time} ({limit} s) and signal_s {self.signal_s}; the program stops signal_s before the "
                f"limit, and Slurm may be {_MARGIN_S} s early, so none is left to work; raise time, or lower signal_s"
            )
        return self


def seconds_of(time: str) -> int | None:
    """Return a time in the forms of sbatch in seconds; None for any other text."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if found is None:
        return None
    days, *rest = found.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is not None or len(numbers) == 3:  # the first is hours, otherwise minutes
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    minutes, seconds = (*numbers, 0)[:2]
    return minutes * 60 + seconds
