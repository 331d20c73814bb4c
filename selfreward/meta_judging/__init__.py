"""Meta-judging: battles between the judgments of a response, Elo scores, and pairs of judgments to train on."""

from collections.abc import Mapping

from selfreward import recipe
from selfreward.meta_judging.meta_judge import MetaJudge
from selfreward.meta_judging.stages import battles, bounds, judgment_pairs
from selfreward.parts import Chat
from selfreward.problems import named


def build(
    section: recipe.MetaJudgingSection, *, judge: recipe.AdditiveSection, chats: Mapping[str, Chat], seed: int
) -> MetaJudge:
    """Return the meta-judge of `judge`. `chats` contains all models by name; raises RecipeError for any other `by`."""
    return MetaJudge(section, judge=judge, chat=named(chats, section.by, "meta_judging"), seed=seed)
