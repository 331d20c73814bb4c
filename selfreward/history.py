"""What finished iterations come to, read from a run folder alone."""

from selfreward import recipe_file
from selfreward.evaluation.tables import GOLD_OUTCOMES, OUTCOMES, SECOND_VALIDATION_OUTCOMES
from selfreward.records import Decision, Evaluation, IterationSummary
from selfreward.store import Store
from selfreward.store.names import folder_of
from selfreward.tables import COUNTS, DECISION, EVALUATION, JUDGE, TEST, TRAINING


def read_history(store: Store) -> tuple[list[IterationSummary], list[Decision], Evaluation | None]:
    """The finished iterations of a run folder, their decisions, and the evaluation of M_0."""
    history: list[IterationSummary] = []
    decisions: list[Decision] = []
    while stored := store.read_json(len(history) + 1, DECISION):
        history.append(summarise(store, len(history) + 1))
        decisions.append(Decision.from_json(stored))
    return history, decisions, initial_evaluation(store)


def initial_evaluation(store: Store) -> Evaluation | None:
    """Of M_0."""
    return _evaluation(store, 0, EVALUATION)


def summarise(store: Store, iteration: int) -> IterationSummary:
    """An iteration that was measured, from its files; the decision on it need not be made yet."""
    seconds = store.seconds_by_stage(iteration)
    seconds.pop(DECISION, None)  # it is made from this summary, which must be the same when it is read again
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
    """`key: old -> new` for each key that interventions changed in this iteration.

    A run that goes on writes the recipe of every iteration anew, so that runtime keys do not differ.
    """
    paths = [store.folder / "recipe.yaml", store.folder / folder_of(iteration) / "recipe.yaml"]
    if not all(path.is_file() for path in paths) or paths[0].read_bytes() == paths[1].read_bytes():
        return ()  # as it nearly always is, and reading YAML takes its time
    may, may_not = recipe_file.changed_keys(*map(recipe_file.load, paths))
    return tuple(sorted([*may, *may_not]))
