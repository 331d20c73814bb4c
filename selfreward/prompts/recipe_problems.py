"""The problems of a recipe's prompts: dropped rows, and prompts to which the policy cannot respond."""

from collections import Counter
from collections.abc import Iterator, Sequence

from selfreward.parts import LeftOut
from selfreward.problems import Facts, Problem, warning
from selfreward.prompts.collecting import counted, listed


def problems(facts: Facts, *, begun: bool) -> Iterator[Problem]:
    """Yield what was dropped from the sources, and more prompts that cannot be used than `max_dropped_rate` allows.

    In a run that has `begun` nothing can be corrected: its prompts and the keys that would help may not change.
    """
    source, recipe = facts.source, facts.recipe
    yield from map(warning, source.notes())
    iterations = range(1, recipe.iterations.max + 1)
    training = [each for t in iterations for each in source.left_out(t)]
    num_training = sum(len(source.training_prompts(t)) for t in iterations)
    held_out = list(source.left_out(None))
    taken = (source.validation_prompts(), source.second_validation_prompts(), source.test_prompts())
    num_held_out = sum(map(len, taken))
    if (other := recipe.evaluation.prompts) is None:
        training, num_training = held_out + training, num_held_out + num_training
    else:
        yield from of_left_out(held_out, num_held_out, "evaluation.prompts", other.max_dropped_rate, begun=begun)
    yield from of_left_out(training, num_training, "prompts", recipe.prompts.max_dropped_rate, begun=begun)


def of_left_out(
    found: Sequence[LeftOut], num_used: int, key: str, max_rate: float, *, begun: bool
) -> Iterator[Problem]:
    """Yield a warning about prompts of the source `key` that were left out; a problem when they are too many."""
    distinct = list({each.prompt_id: each for each in found}.values())
    if not distinct:
        return
    num_tried = len(distinct) + num_used
    reasons = counted(Counter(each.kind for each in distinct))
    what = f"{key}: {len(distinct):,} of {num_tried:,} prompts"
    if begun or len(distinct) <= max_rate * num_tried:
        yield warning(f"{what} are left out ({reasons}); for example {distinct[0].found}")
        return
    lines = listed((f"{each.found}; {each.advice}" for each in distinct), len(distinct))
    yield Problem(
        f"{what} cannot be used ({reasons}); at most {max_rate:g} of them may be left out ({key}.max_dropped_rate); "
        f"correct or remove them, or raise that key\n{lines}"
    )
