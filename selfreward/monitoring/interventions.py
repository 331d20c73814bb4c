"""Interventions for a judge that starves or drifts or for a plateau: patches of the recipe, tried one at a time.

    more_draws           judging.num_draws doubled; in an ensemble, for each member that draws more than once; for a
                         judge that does not sample, more prompt variants, of which there are three
    min_reliability      pairing.min_reliability is set to monitor.min_reliability: only pairs of prompts on which the
                         judge agrees with itself
    consistency_weights  pairing.weight: consistency (CREAM, 2410.12735)
    initial_rejected     pairing.kind: initial_rejected (Temporal Self-Rewarding, 2508.06026)
    higher_temperature   sampling.temperature + 0.2, at most 1.5: more diverse responses
    higher_rho           pairing.rho + 0.05, at most 0.45; another kind of pairing becomes length_controlled
    larger_beta          training.beta doubled: smaller steps away from the reference
    pin_judge            judging.by: best instead of policy; the best checkpoint serves as the best judge
    fresh_prompts        one more iteration without changes: its prompts are new, as in each iteration
    stop                 the run stops; interventions listed after it are never tried

An intervention chosen by the decision on iteration t is active in t+1. When the decision that it was tried for recurs
there, it did not help: it is removed, and the next one of the list is tried without it, so that the effect of each is
known. One that helped remains active, and may be used again later if it then still changes something. For an
intervention against PLATEAU or DRIFT, an iteration that is INVALID or trained nothing is no evidence: the intervention
is removed too, but may be tried again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.recipe import (
    EnsembleSection,
    ExpectedScoreSection,
    InterventionsSection,
    LengthControlled,
    Pairing,
    Recipe,
    UserIntervention,
)
from selfreward.recipe.judging import MAX_PROMPT_VARIANTS
from selfreward.records import Decision, DecisionName

STOP, FRESH_PROMPTS = "stop", "fresh_prompts"
PATCHABLE_SECTIONS = ("sampling", "judging", "meta_judging", "pairing", "training")
MAX_TEMPERATURE, MAX_RHO = 1.5, 0.45

# The number on which each decision is based: the first of these that was measured.
KEY_NUMBERS: Mapping[DecisionName, tuple[str, ...]] = {
    "STARVED": ("reliability", "pair_yield_rate"),
    "PLATEAU": ("gain_vs_previous",),
    "DRIFT": ("gold_accuracy_vs_best", "tau"),
}


def patch(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe with an intervention applied, given its name in `monitor.interventions`.

    Raises RecipeError when the recipe has no such key, when nothing would change, or when the result is not valid.
    """
    keys = _keys(recipe, name)
    if not keys:
        return recipe
    try:
        patched = recipe_file.patched(recipe, keys)
    except RecipeError as error:
        raise _refusal(name, str(error)) from None
    if patched == recipe:
        raise _refusal(name, f"{', '.join(keys)} would not change; an intervention must change a key; leave it out")
    return patched


def effective_recipe(recipe: Recipe, decisions: Sequence[Decision]) -> Recipe:
    """Return the recipe of the iteration after `decisions`, which are the decisions on iterations 1..t in order."""
    for name in active_interventions(decisions):
        recipe = patch(recipe, name)
    return recipe


def active_interventions(decisions: Sequence[Decision]) -> list[str]:
    """Return the names of the interventions active in the iteration after `decisions`, the oldest first."""
    names: list[str] = []
    for decision in decisions:
        if decision.effect is not None and decision.effect["helped"] is not True:
            names.pop()  # only the last one is being tried
        if decision.intervention:
            names.append(decision.intervention)
    return names


def next_intervention(
    name: DecisionName, listed: InterventionsSection, decided: Sequence[Decision], *, recipe: Recipe | None = None
) -> str | None:
    """Return the next intervention for a decision of this name: the first that has not failed and changes a key.

    `decided` includes the current decision, with its `effect` and without an intervention. Returns None when none is
    left or listed. Without `recipe`, every listed intervention is assumed to change something.
    """
    left = _names(listed, name)
    for effect in (decision.effect for decision in decided):
        failed = effect is not None and effect["tried_for"] == name and effect["helped"] is False
        if effect is not None and failed and effect["name"] in left:
            left.remove(effect["name"])
    now = effective_recipe(recipe, decided) if recipe is not None and left else None
    return next((candidate for candidate in left if now is None or _can_be_tried(now, candidate)), None)


def effect_of(decision: Decision, decided: Sequence[Decision], *, still_starved: bool = False) -> dict[str, Any] | None:
    """Return the effect of the intervention that was new in this decision's iteration; None when there was none.

    `still_starved`: the judge is still starved, although another decision takes precedence.
    `helped` is None when the iteration is no evidence for or against it. `before` and `after` are the values of
    `number`, a name in `bounds`, or None where it was not measured.
    """
    if not decided or not decided[-1].intervention:
        return None
    last = decided[-1]
    number = next((n for n in KEY_NUMBERS[last.decision] if n in last.bounds), KEY_NUMBERS[last.decision][0])
    again = decision.decision == last.decision or (still_starved and last.decision == "STARVED")
    compared = "gain_vs_previous" in decision.bounds
    is_unknown = last.decision != "STARVED" and decision.decision in ("INVALID", "STARVED") and not compared
    return {
        "name": last.intervention,
        "tried_for": last.decision,
        "helped": None if is_unknown else not (again or decision.decision in ("HARM", "OVEROPT")),
        "number": number,
        "before": last.bounds.get(number, {}).get("mean"),
        "after": decision.bounds.get(number, {}).get("mean"),
    }


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipes to which the listed interventions lead, by name: each alone, and combined with earlier ones.

    Raises RecipeError for an intervention that cannot be used alone. One that adds nothing to the earlier ones is
    skipped here, as in a run.
    """
    found: dict[str, Recipe] = {}
    for decision in InterventionsSection.model_fields:
        names = _names(recipe.monitor.interventions, decision)
        if STOP in names[:-1]:
            raise _refusal(STOP, f"{names[-1]} after it is never tried; stop ends a list; remove everything after it")
        together, label = recipe, ""
        for name in names:
            found[name] = patch(recipe, name)
            if found[name] != recipe and _can_be_tried(together, name):
                together, label = patch(together, name), f"{label} and {name}" if label else name
                found[label] = together
    return {label: variant for label, variant in found.items() if variant != recipe}


def _can_be_tried(recipe: Recipe, name: str) -> bool:
    try:
        patch(recipe, name)
    except RecipeError:
        return False
    return True


def _names(listed: InterventionsSection, decision: str) -> list[str]:
    return [i.name if isinstance(i, UserIntervention) else i for i in getattr(listed, decision, [])]


def _user_patches(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the keys that each user-defined intervention sets, by name."""
    found: dict[str, dict[str, Any]] = {}
    for decision in InterventionsSection.model_fields:
        for listed in getattr(recipe.monitor.interventions, decision):
            if isinstance(listed, UserIntervention) and found.setdefault(listed.name, listed.set) != listed.set:
                raise _refusal(listed.name, "two patches have this name; names must be unique; rename one")
    return found


def _keys(recipe: Recipe, name: str) -> dict[str, Any]:
    """Return the keys that an intervention sets, with their new values; empty for one that changes no key."""
    pairing = recipe.pairing
    match name:
        case "more_draws":
            return _draws(recipe)
        case "min_reliability":
            return {"pairing.min_reliability": recipe.monitor.min_reliability}
        case "consistency_weights":
            return {"pairing.weight": "consistency"}
        case "initial_rejected":
            return _pairing(pairing, "initial_rejected")
        case "higher_temperature":
            raised = max(recipe.sampling.temperature, min(recipe.sampling.temperature + 0.2, MAX_TEMPERATURE))
            return {"sampling.temperature": round(raised, 6)}
        case "higher_rho":
            if not isinstance(pairing, LengthControlled):
                return _pairing(pairing, "length_controlled")
            return {"pairing.rho": round(max(pairing.rho, min(pairing.rho + 0.05, MAX_RHO)), 6)}
        case "larger_beta":
            return {"training.beta": 2 * recipe.training.beta}
        case "pin_judge":
            return _pinned_judging(recipe)
        case "fresh_prompts" | "stop":
            return {}
        case _:
            return dict(_sections_checked(name, _user_patches(recipe)[name]))


def _draws(recipe: Recipe) -> dict[str, Any]:
    judge = recipe.judging
    if isinstance(judge, EnsembleSection):
        draws = [getattr(member, "num_draws", 0) for member in judge.members]
        least = min(2, max(draws))  # members that draw once are left alone if others draw more often
        if least:
            changed = [
                {**member.model_dump(mode="json"), **({"num_draws": 2 * n} if n >= least else {})}
                for member, n in zip(judge.members, draws, strict=True)
            ]
            return {"judging.members": changed}
    elif isinstance(judge, ExpectedScoreSection) and judge.reasoning is None:
        return {"judging.num_draws": min(2 * judge.num_draws, MAX_PROMPT_VARIANTS)}
    elif hasattr(judge, "num_draws"):
        return {"judging.num_draws": 2 * judge.num_draws}
    raise _refusal("more_draws", f"judging.kind is {judge.kind}, which has no draws; leave it out")


def _pinned_judging(recipe: Recipe) -> dict[str, Any]:
    judge = recipe.judging
    if isinstance(judge, EnsembleSection):
        members = [member.model_dump(mode="json") for member in judge.members]
        if any(member.get("by") == "policy" for member in members):
            return {"judging.members": [m | ({"by": "best"} if m.get("by") == "policy" else {}) for m in members]}
    elif getattr(judge, "by", None) == "policy":
        return {"judging.by": "best"}
    raise _refusal("pin_judge", "no judge is by policy, so none changes during the run; leave it out")


def _pairing(pairing: Pairing, kind: str) -> dict[str, Any]:
    """Return another kind of pairing, with the settings shared by all kinds unchanged."""
    return {"pairing": {"kind": kind, **{key: getattr(pairing, key) for key in Pairing.model_fields}}}


def _sections_checked(name: str, keys: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in keys.items():
        if key.split(".")[0] not in PATCHABLE_SECTIONS:
            raise _refusal(
                name,
                f"it sets {key}; keys of {', '.join(PATCHABLE_SECTIONS)} are allowed, because the measurement must "
                "stay the same; remove the key",
            )
        yield key, value


def _refusal(name: str, why: str) -> RecipeError:
    return RecipeError(f"monitor.interventions: {name}: {why}")
