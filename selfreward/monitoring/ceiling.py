"""The monitor for other trainers: it takes outcomes by prompt and returns a decision after each iteration.

    monitor = CeilingMonitor(delta=0.05, horizon=8)
    decision = monitor.observe({"prompt-1": 1.0, "prompt-2": 0.5})
    if decision.stops:
        print(decision.reason, monitor.best_iteration)

It stores the outcomes that it was given, and decides by `decide.py`, as a run does.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.monitoring.decide import decide
from selfreward.monitoring.evidence import Evidence, tabulate
from selfreward.monitoring.table import read_table
from selfreward.recipe import MonitorSection
from selfreward.recipe.renamed import ARGUMENTS
from selfreward.records import Decision, OutcomeSet, PromptOutcome

ByPrompt = Mapping[str, float | None] | Iterable[float | None]
"""Values by prompt id, or in a fixed order of the prompts; None and NaN are unscored."""

RUN_SETTINGS = frozenset({"interventions", "min_pairs", "max_unscored_rate", "max_hours"})
"""Settings of the recipe's section that apply only to runs."""
JUDGE_SETTINGS = frozenset({"max_gold_loss", "min_reliability", "min_yield_rate"})
"""Settings about the judge, which outcomes contain no information on."""


class Measured(TypedDict, total=False):
    """Arguments of `CeilingMonitor.observe`, for a comparison with another checkpoint than the previous one."""

    anchor: ByPrompt
    verifiable: ByPrompt
    length_deltas_tokens: ByPrompt


class CeilingMonitor:
    """`settings` are keys of the recipe's section `monitor`; `num_second_validation_prompts` is the size of that
    set."""

    def __init__(self, *, num_second_validation_prompts: int = 0, **settings: Any) -> None:
        if old := next((name for name in settings if name in ARGUMENTS), None):
            raise RecipeError(f"CeilingMonitor: {old} was renamed; it is called {ARGUMENTS[old]} now; rename it")
        self.settings = settings_of(settings, unused=RUN_SETTINGS | JUDGE_SETTINGS, name="CeilingMonitor")
        self._num_second_validation = num_second_validation_prompts
        self._records: list[Evidence] = []
        self._decisions: list[Decision] = []

    @classmethod
    def from_csv(cls, path: str | Path, **settings: Any) -> "CeilingMonitor":
        """Return a monitor that has observed all iterations of a table (`table.py`). Raises RecipeError."""
        monitor = cls(**settings)
        for record in read_table(Path(path)).evidence:
            monitor._num_second_validation = record.num_second_validation
            monitor._decide(record)
        return monitor

    @property
    def decisions(self) -> Sequence[Decision]:
        return tuple(self._decisions)

    @property
    def best_iteration(self) -> int:
        """The iteration of the checkpoint to use now; 0 is the initial model."""
        return self._decisions[-1].best_iteration if self._decisions else 0

    def observe(
        self,
        anchor: ByPrompt,
        *,
        self_judge: ByPrompt | None = None,
        verifiable: ByPrompt | None = None,
        length_deltas_tokens: ByPrompt | None = None,
        against_best: Measured | None = None,
        position_consistency: float | None = None,
    ) -> Decision:
        """Return the decision on the next iteration, M_t, from outcomes against M_{t-1}.

        Outcomes lie in [0, 1]: 1 better, 0.5 no difference, 0 worse, by the anchor, by the judge that labels, and by
        programmatic checks. Length deltas are the lengths of M_t's responses minus those of M_{t-1}'s. `against_best`
        contains the same against `best_iteration`, without which M_t cannot become the best; while the best is M_{t-1},
        it is not needed and is ignored. `position_consistency`, if the anchor compared in both orders, is the share of
        prompts in [0, 1] for which it preferred the same response. Raises RecipeError for a value outside [0, 1].
        """
        t = len(self._records) + 1
        rows = [
            *_rows("anchor", anchor, against=t - 1, lengths=length_deltas_tokens),
            *_rows("self_judge", self_judge, against=t - 1, lengths=length_deltas_tokens),
            *_rows("verifiable", verifiable, against=t - 1),
            *_rows_against_best(against_best, best=self.best_iteration, previous=t - 1),
        ]
        record = Evidence(
            iteration=t,
            previous=t - 1,
            outcomes=tabulate(rows),
            num_second_validation=self._num_second_validation,
            anchor_examined=position_consistency is not None,
            position_consistency=position_consistency,
        )
        return self._decide(record)

    def observe_second_validation(
        self, anchor: ByPrompt, *, length_deltas_tokens: ByPrompt | None = None, against_best: Measured | None = None
    ) -> Decision:
        """Repeat the last decision, which `wants_second_validation`, with outcomes on the second validation set."""
        if not self._decisions or not self._decisions[-1].wants_second_validation:
            raise RecipeError(
                "observe_second_validation: the second validation set is not wanted; an extra analysis would exceed "
                "the alpha-spending budget; call it when the last decision's `wants_second_validation` is true"
            )
        record, decided = self._records[-1], self._decisions[:-1]
        best = decided[-1].best_iteration if decided else 0
        rows = [
            *_rows("anchor", anchor, against=record.previous, lengths=length_deltas_tokens, set="second_validation"),
            *_rows_against_best(against_best, best=best, previous=record.previous, set="second_validation"),
        ]
        return self._decide(replace(record, outcomes={**record.outcomes, **tabulate(rows)}))

    def _decide(self, record: Evidence) -> Decision:
        """Decide on an iteration, replacing an earlier decision on the same iteration."""
        records, decided = self._records[: record.iteration - 1], self._decisions[: record.iteration - 1]
        decision = decide([*records, record], self.settings, decided=decided)
        self._records, self._decisions = [*records, record], [*decided, decision]
        return decision


def settings_of(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, unused: frozenset[str] = frozenset(), name: str
) -> MonitorSection:
    """Return the monitor's settings, validated like a recipe's; `overrides` are KEY=VALUE as for `--set`.

    `unused` are keys that would have no effect here and are refused; `name` replaces the file name in errors. Raises
    RecipeError.
    """
    given = [*values, *(override.partition("=")[0] for override in overrides)]
    if without_effect := [key for key in given if key in unused]:
        raise RecipeError(
            f"{name}: {without_effect[0]} has no effect here; allowed are "
            f"{', '.join(key for key in MonitorSection.model_fields if key not in unused)}; remove it"
        )
    recipe = {
        "name": "monitor", "output_dir": ".", "models": {"policy": {"model": "none"}}, "prompts": {"kind": "builtin"},
        "judging": {"kind": "additive"}, "monitor": dict(values),
    }  # fmt: skip
    return recipe_file.validated(recipe, name=name, overrides=[f"monitor.{o}" for o in overrides]).monitor


_BY: Mapping[str, Literal["anchor", "self", "checks"]] = {
    "anchor": "anchor",
    "self_judge": "self",
    "verifiable": "checks",
}


def _rows(
    name: str, values: ByPrompt | None, *, against: int, lengths: ByPrompt | None = None, set: OutcomeSet = "validation"
) -> Iterator[PromptOutcome]:
    outcomes, deltas = _by_prompt(name, values), _by_prompt("length_deltas_tokens", lengths)
    if name == "anchor" and (unmatched := deltas.keys() - outcomes.keys()):
        raise RecipeError(
            f"length_deltas_tokens: {len(unmatched)} of {len(deltas)} belong to prompts without an outcome by the "
            "anchor; both must have the same prompts; give both by prompt id, or both in the same order"
        )
    for prompt_id, outcome in outcomes.items():
        if outcome is not None and not 0 <= outcome <= 1:
            raise RecipeError(
                f"{name}: the outcome of prompt {prompt_id} is {outcome:g}; outcomes lie in [0, 1], 0.5 is no "
                "difference; rescale it, or give None where nothing was measured"
            )
        where: OutcomeSet = "verifiable" if name == "verifiable" else set
        yield PromptOutcome(prompt_id, where, _BY[name], against, outcome, deltas.get(prompt_id))


def _rows_against_best(
    measured: Measured | None, *, best: int, previous: int, set: OutcomeSet = "validation"
) -> Iterator[PromptOutcome]:
    if measured is None or best == previous:
        return
    lengths = measured.get("length_deltas_tokens")
    yield from _rows("anchor", measured.get("anchor"), against=best, lengths=lengths, set=set)
    yield from _rows("verifiable", measured.get("verifiable"), against=best)


def _by_prompt(name: str, values: ByPrompt | None) -> dict[str, float | None]:
    """Return the values by prompt id, None where unscored; values without ids get their index as id."""
    if values is None:
        return {}
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
    found: dict[str, float | None] = {}
    for prompt_id, value in pairs:
        try:
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise RecipeError(
                f"{name}: prompt {prompt_id} has {value!r:.60}; a number, or None, is needed; fix it"
            ) from None
        if math.isinf(number):
            raise RecipeError(f"{name}: prompt {prompt_id} has {number}; a finite number, or None, is needed; fix it")
        found[str(prompt_id)] = None if math.isnan(number) else number
    return found
