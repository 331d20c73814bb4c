"""Who scores responses, and who compares them: one file per judge."""

import difflib
from collections.abc import Collection
from typing import assert_never

from selfreward import recipe
from selfreward.errors import RecipeError
from selfreward.parts import Engine, Judge, PairwiseJudge

_ALWAYS_THERE = ("policy", "initial")


def build(section: recipe.JudgingSection, *, engine: Engine, seed: int, models: Collection[str]) -> Judge:
    """The judge that labels. `models` are the names in the recipe's `models`; raises RecipeError for any other `by`."""
    match section:
        case recipe.AdditiveJudge():
            from selfreward.judging.additive import AdditiveJudge

            _check_model("judging.by", section.by, models)
            return AdditiveJudge(section, engine=engine, seed=seed)
        case recipe.ExpectedScoreJudge():
            from selfreward.judging.expected_score import ExpectedScoreJudge

            _check_model("judging.by", section.by, models)
            return ExpectedScoreJudge(section, engine=engine)
        case recipe.VerifierJudge():
            from selfreward.judging.verifier import VerifierJudge

            return VerifierJudge(section)
        case _:
            assert_never(section)


def build_anchor(section: recipe.AnchorSection, *, engine: Engine, seed: int, models: Collection[str]) -> PairwiseJudge:
    """The judge that measures. It draws nothing, so `seed` has no part in it. Raises RecipeError as `build` does."""
    match section.kind:
        case "pairwise":
            from selfreward.judging.pairwise import PairwiseAnchor

            _check_model("evaluation.anchor.by", section.by, models)
            return PairwiseAnchor(section, engine=engine)
        case _:
            assert_never(section.kind)


def _check_model(where: str, name: str, models: Collection[str]) -> None:
    known = list(dict.fromkeys((*_ALWAYS_THERE, *models)))
    if name not in known:
        meant = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {meant[0]!r}?" if meant else "name one of these, or add the model under `models`"
        raise RecipeError(f"{where}: there is no model {name!r}; there are {', '.join(known)}; {hint}")
