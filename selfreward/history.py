"""What finished iterations come to, read from a run folder alone: counts that add up, and summaries."""

from collections import Counter
from collections.abc import Mapping

from selfreward.records import (
    Decision,
    DroppedPrompt,
    Evaluation,
    IterationSummary,
    Judgment,
    PreferencePair,
    Prompt,
    Response,
)
from selfreward.store import Store


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
        iteration = len(history) + 1
        measured = store.read_json(iteration, "evaluation")
        evaluation = Evaluation.from_json(measured) if measured else not_trained(iteration)
        training = store.read_json(iteration, "training") or {}
        judged = store.read_json(iteration, "judge")
        judging = Evaluation.from_json(judged) if judged else None
        history.append(summarise(store, iteration, count(store, iteration), judging, training, evaluation))
        decisions.append(Decision.from_json(stored))
    initial = store.read_json(0, "evaluation")
    return history, decisions, Evaluation.from_json(initial) if initial else None


def not_trained(iteration: int) -> Evaluation:
    return Evaluation(iteration, {}, {"all": "nothing was trained in this iteration"})


def summarise(
    store: Store,
    iteration: int,
    counts: Mapping[str, int],
    judging: Evaluation | None,
    training: Mapping[str, object],
    evaluation: Evaluation,
) -> IterationSummary:
    seconds = store.seconds_by_stage(iteration)
    seconds.pop("decision", None)  # it is made from this summary, which must be the same when it is read again
    return IterationSummary(
        iteration=iteration,
        counts=counts,
        judging=judging,
        training=training,
        evaluation=evaluation,
        seconds_by_stage=seconds,
        usage_by_stage=store.usage_by_stage(iteration),
    )
