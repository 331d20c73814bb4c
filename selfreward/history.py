"""Summaries of finished iterations, read from a run folder alone."""

from selfreward import recipe_file
from selfreward.begun import has_begun as has_begun
from selfreward.begun import stored_recipe as stored_recipe
from selfreward.evaluation.tables import GOLD_OUTCOMES, OUTCOMES, SECOND_VALIDATION_OUTCOMES
from selfreward.records import Decision, Evaluation, IterationSummary
from selfreward.store import Store
from selfreward.store.names import folder_of
from selfreward.tables import COUNTS, DECISION, EVALUATION, JUDGE, TEST, TRAINING


def read_history(store: Store) -> tuple[list[IterationSummary], list[Decision], Evaluation | None]:
    """Return the finished iterations of a run folder, their decisions, and the evaluation of M_0."""
    history: list[IterationSummary] = []
    decisions: list[Decision] = []
    while stored := store.read_json(len(history) + 1, DECISION):
        history.append(summarise(store, len(history) + 1))
        decisions.append(Decision.from_json(stored))
    return history, decisions, initial_evaluation(store)


def initial_evaluation(store: Store) -> Evaluation | None:
    """Return the evaluation of M_0."""
    return _evaluation(store, 0, EVALUATION)


def summarise(store: Store, iteration: int) -> IterationSummary:
    """Return the summary of a measured iteration, from its files; the decision on it may still be missing."""
    seconds = store.seconds_by_stage(iteration)
    seconds.pop(DECISION, None)  # the decision is made from this summary, which must be the same when it is read again
    return IterationSummary(
        iteration=iteration,
        counts=store.read_json(iteration, COUNTS) or {},
        training=store.read_json(iteration, TRAINING) or {},
        evaluation=_evaluation(store, iteration, EVALUATION) or _not_trained(iteration),
        seconds_by_stage=seconds,
        usage_by_stage=store.usage_by_stage(iteration),
        groups=store.groups(iteration),
        judging=_evaluation(store, iteration, JUDGE),
        test_set=_evaluation(store, iteration, TEST),
        outcomes=tuple(
            outcome
            for table in (OUTCOMES, SECOND_VALIDATION_OUTCOMES, GOLD_OUTCOMES)
            if store.has(iteration, table)
            for outcome in store.read(iteration, table)
        ),
        recipe_changes=_recipe_changes(store, iteration),
    )


def _evaluation(store: Store, iteration: int, name: str) -> Evaluation | None:
    measured = store.read_json(iteration, name)
    return Evaluation.from_json(measured) if measured else None


def _not_trained(iteration: int) -> Evaluation:
    return Evaluation(iteration, {}, {"all": "nothing was trained in this iteration"})


def _recipe_changes(store: Store, iteration: int) -> tuple[str, ...]:
    """Return `key: old -> new` for each key that interventions changed in this iteration.

    A resumed run rewrites the recipe of every iteration, so keys that changed on resume do not differ.
    """
    paths = [store.folder / "recipe.yaml", store.folder / folder_of(iteration) / "recipe.yaml"]
    if not all(path.is_file() for path in paths) or paths[0].read_bytes() == paths[1].read_bytes():
        return ()  # the usual case; parsing YAML is slow
    may, may_not = recipe_file.changed_keys(*map(recipe_file.load_stored, paths))
    return tuple(sorted([*may, *may_not]))
