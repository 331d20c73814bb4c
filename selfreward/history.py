"""What finished iterations come to, read from a run folder alone: counts that add up, and summaries."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML

from selfreward.records import (
    Decision,
    DroppedPrompt,
    Evaluation,
    IterationSummary,
    Judgment,
    PreferencePair,
    Prompt,
    PromptOutcome,
    Response,
)
from selfreward.store import Store
from selfreward.store.names import folder_of


def count(store: Store, iteration: int) -> dict[str, int]:
    """The funnel from prompts to pairs, read from what is stored: the counts add up."""
    counts: Counter[str] = Counter(num_unscored_judgments=0, num_dropped_prompts=0, num_pairs=0)
    counts["num_prompts"] = sum(1 for _ in store.read(iteration, "prompts", Prompt))
    for response in store.read(iteration, "responses", Response):
        counts["num_responses"] += 1
        counts["num_cut_off_responses"] += response.finish_reason == "length"
    for judgment in store.read(iteration, "judgments", Judgment):
        if judgment.part:  # a criterion or a member; the judge's own judgment is another one
            continue
        counts["num_judgments"] += 1
        if judgment.unscored is not None:
            counts["num_unscored_judgments"] += 1
            counts[f"num_unscored_judgments:{judgment.unscored}"] += 1
    for pair in store.read(iteration, "pairs", PreferencePair):
        counts["num_pairs"] += 1
        counts["num_judgment_pairs"] += pair.kind == "judgment"
    for dropped in store.read(iteration, "dropped_prompts", DroppedPrompt):
        counts["num_dropped_prompts"] += 1
        counts[f"num_dropped_prompts:{dropped.reason}"] += 1
    return dict(counts)


def read_history(store: Store) -> tuple[list[IterationSummary], list[Decision], Evaluation | None]:
    """The finished iterations of a run folder, their decisions, and the evaluation of M_0."""
    history: list[IterationSummary] = []
    decisions: list[Decision] = []
    while stored := store.read_json(len(history) + 1, "decision"):
        history.append(summarise(store, len(history) + 1))
        decisions.append(Decision.from_json(stored))
    initial = store.read_json(0, "evaluation")
    return history, decisions, Evaluation.from_json(initial) if initial else None


def summarise(store: Store, iteration: int) -> IterationSummary:
    """An iteration that was measured, from its files; the decision on it need not be made yet."""
    measured, judged = store.read_json(iteration, "evaluation"), store.read_json(iteration, "judge")
    seconds = store.seconds_by_stage(iteration)
    seconds.pop("decision", None)  # it is made from this summary, which must be the same when it is read again
    return IterationSummary(
        iteration=iteration,
        counts=store.read_json(iteration, "counts") or {},
        training=store.read_json(iteration, "training") or {},
        evaluation=Evaluation.from_json(measured) if measured else _not_trained(iteration),
        seconds_by_stage=seconds,
        usage_by_stage=store.usage_by_stage(iteration),
        judging=Evaluation.from_json(judged) if judged else None,
        outcomes=tuple(
            outcome
            for stage in ("outcomes", "reserve_outcomes", "gold_outcomes")
            if store.has(iteration, stage)
            for outcome in store.read(iteration, stage, PromptOutcome)
        ),
        recipe_changes=_recipe_changes(store, iteration),
    )


def _not_trained(iteration: int) -> Evaluation:
    return Evaluation(iteration, {}, {"all": "nothing was trained in this iteration"})


def _recipe_changes(store: Store, iteration: int) -> tuple[str, ...]:
    """`key: old -> new` for each key that interventions changed in this iteration.

    A run that goes on writes the recipe of every iteration anew, so that runtime keys do not differ.
    """
    paths = [store.folder / "recipe.yaml", store.folder / folder_of(iteration) / "recipe.yaml"]
    if not all(path.is_file() for path in paths):
        return ()
    texts = [path.read_text(encoding="utf-8") for path in paths]
    if texts[0] == texts[1]:  # as it nearly always is, and reading YAML takes its time
        return ()
    before, now = (dict(_leaves(YAML(typ="safe", pure=True).load(text))) for text in texts)
    keys = sorted({*before, *now})
    return tuple(f"{k}: {before.get(k)!r} -> {now.get(k)!r}" for k in keys if before.get(k) != now.get(k))


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
