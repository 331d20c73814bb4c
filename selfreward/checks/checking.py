"""Validation of declarative checks, and running them on a text."""

import difflib
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfreward.checks.arguments import REQUIRED
from selfreward.checks.registry import KINDS, Check, Kind
from selfreward.errors import RecipeError


def validate(check: Any, *, where: str = "check") -> None:
    """Raise RecipeError, naming the kind or argument, unless `check` is {"kind": NAME, **arguments}.

    An argument that is null counts as not given: tables with the same columns for all kinds are padded with nulls.
    """
    _resolve(check, where)


def passes(check: Check, text: str, *, loose: bool = False) -> bool:
    """Whether `text` passes `check`. A blank text passes no check, as in IFEval.

    With `loose` it is enough that one of the eight `variants` of the text passes. Raises RecipeError for a check that
    does not validate, but never because of the text.
    """
    kind, arguments = _resolve(check, "check")
    candidates = variants(text) if loose else (text,)
    return any(bool(candidate.strip()) and kind.passes(candidate, **arguments) for candidate in candidates)


def pass_all(checks: Sequence[Check], text: str, *, loose: bool = False) -> bool:
    """Whether every check passes (IFEval's prompt level). Raises RecipeError when there are no checks."""
    return all(_outcomes(checks, text, loose))


def share_passed(checks: Sequence[Check], text: str, *, loose: bool = False) -> float:
    """Return the share of checks that pass, in [0, 1] (IFEval's instruction level). Raises RecipeError without
    checks."""
    outcomes = _outcomes(checks, text, loose)
    return sum(outcomes) / len(outcomes)


def variants(text: str) -> tuple[str, ...]:
    """Return the eight texts of IFEval's loose form: without first, last, or both lines, with and without asterisks.

    They tolerate an introduction such as "Sure, here it is:", a closing sentence, and emphasis.
    """
    lines = text.split("\n")
    cut = (text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])))
    return cut + tuple(variant.replace("*", "") for variant in cut)


def from_ifeval(instruction_id_list: Sequence[str], kwargs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return the checks of a row of the IFEval data. Arguments that are null are left out. Raises RecipeError."""
    if len(instruction_id_list) != len(kwargs):
        raise RecipeError(
            f"IFEval row: {len(instruction_id_list)} instructions but {len(kwargs)} sets of arguments; "
            "each instruction needs one set; correct the row"
        )
    checks = tuple(
        {"kind": name, **{key: value for key, value in arguments.items() if value is not None}}
        for name, arguments in zip(instruction_id_list, kwargs, strict=True)
    )
    for check in checks:
        validate(check, where="IFEval row")
    return checks


def _outcomes(checks: Sequence[Check], text: str, loose: bool) -> list[bool]:
    if not checks:
        raise RecipeError("checks: none given; at least one is needed; leave such a prompt unscored")
    return [passes(check, text, loose=loose) for check in checks]


def _resolve(check: Any, where: str) -> tuple[Kind, dict[str, Any]]:
    if not isinstance(check, Mapping):
        raise RecipeError(
            f"{where}: found {type(check).__name__}; a check is a mapping with `kind` and its arguments; write "
            '{"kind": "punctuation:no_comma"}'
        )
    given = {key: value for key, value in check.items() if value is not None}
    name = given.pop("kind", None)
    if not isinstance(name, str) or name not in KINDS:
        raise RecipeError(
            f"{where}: unknown kind {name!r}{_did_you_mean(name, KINDS)}; allowed are {', '.join(sorted(KINDS))}"
        )
    kind = KINDS[name]
    for key in given:
        if key not in kind.arguments:
            allowed = ", ".join(kind.arguments) or "no arguments"
            raise RecipeError(
                f"{where} of kind {name}: unknown argument {key!r}{_did_you_mean(key, kind.arguments)}; "
                f"allowed: {allowed}; remove or rename it"
            )
    return kind, _arguments(kind, given, where)


def _arguments(kind: Kind, given: dict[str, Any], where: str) -> dict[str, Any]:
    resolved = {}
    for key, argument in kind.arguments.items():
        value = given.get(key, argument.default)
        if value is REQUIRED:
            raise RecipeError(f"{where} of kind {kind.name}: {key} is missing; give {argument.allowed()}")
        if key in given and not argument.accepts(value):
            raise RecipeError(
                f"{where} of kind {kind.name}: {key} is {_shown(value)}; allowed is {argument.allowed()}; correct it"
            )
        resolved[key] = value
    problem = kind.consistent(**resolved) if kind.consistent else None
    if problem:
        raise RecipeError(f"{where} of kind {kind.name}: {problem}")
    return resolved


def _did_you_mean(name: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _shown(value: Any) -> str:
    return textwrap.shorten(repr(value), width=80, placeholder="...")
