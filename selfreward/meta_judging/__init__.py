"""Who judges judgments: battles between the judgments of a response, Elo, and pairs of judgments to train on."""

import difflib
from collections.abc import Mapping

from selfreward import recipe
from selfreward.errors import RecipeError
from selfreward.meta_judging.meta_judge import MetaJudge
from selfreward.meta_judging.stages import battles, bounds, judgment_pairs
from selfreward.parts import Chat


def build(
    section: recipe.MetaJudgingSection, *, judge: recipe.AdditiveJudge, chats: Mapping[str, Chat], seed: int
) -> MetaJudge:
    """Of the judgments of `judge`. `chats` are all models by name; raises RecipeError for any other `by`."""
    if section.by not in chats:
        meant = difflib.get_close_matches(section.by, chats, n=1)
        hint = f"did you mean {meant[0]!r}?" if meant else "name one of these, or add the model under `models`"
        raise RecipeError(f"meta_judging.by: there is no model {section.by!r}; there are {', '.join(chats)}; {hint}")
    return MetaJudge(section, judge=judge, chat=chats[section.by], seed=seed)
