"""The judges that score and compare responses, one file per judge."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, assert_never

from selfreward.errors import RecipeError
from selfreward.judging.additive import AdditiveJudge
from selfreward.judging.constitution import ConstitutionJudge
from selfreward.judging.ensemble import EnsembleJudge
from selfreward.judging.expected_score import ExpectedScoreJudge
from selfreward.judging.intrinsic import IntrinsicJudge
from selfreward.judging.likelihood import LikelihoodJudge
from selfreward.judging.pairwise import PairwiseAnchor, PairwiseJudge
from selfreward.judging.recipe_problems import ANCHOR, anchor_problems, judge_problems, members, problems
from selfreward.judging.reward_model import RewardModelJudge
from selfreward.judging.rubric import RubricJudge
from selfreward.judging.scored_anchor import ScoredAnchor
from selfreward.judging.self_consistency import SelfConsistencyJudge
from selfreward.judging.stages import judgments, previous_judgments
from selfreward.judging.verifier import VerifierJudge
from selfreward.parts import Anchor, Chat, Engine, Judge
from selfreward.problems import named
from selfreward.recipe import AnchorSection, ModelSection
from selfreward.recipe import judging as sections


def build(
    section: sections.JudgingSection,
    *,
    chats: Mapping[str, Chat],
    engine: Engine,
    seed: int,
    models: Mapping[str, ModelSection] | None = None,
    where: str = "judging",
) -> Judge:
    """Return the judge that labels. `chats` contains all models by name; raises RecipeError for any other `by`.

    `models` are the local models of the recipe, of which a reward model is one.
    """
    match section:
        case sections.AdditiveSection():
            return AdditiveJudge(section, chat=named(chats, section.by, where), seed=seed)
        case sections.ExpectedScoreSection():
            return ExpectedScoreJudge(section, chat=named(chats, section.by, where), seed=seed)
        case sections.PairwiseSection():
            return PairwiseJudge(section, chat=named(chats, section.by, where), seed=seed)
        case sections.RubricSection():
            return RubricJudge(section, chat=named(chats, section.by, where), seed=seed)
        case sections.ConstitutionSection():
            return ConstitutionJudge(section, chat=named(chats, section.by, where), seed=seed)
        case sections.VerifierSection():
            return VerifierJudge(section)
        case sections.RewardModelSection():
            _local(chats, section.by, where)
            model = (models or {}).get(section.by)
            if model is None:
                raise RecipeError(
                    f"{where}.by: {section.by} is the policy, which is no reward model; a sequence-classification "
                    "checkpoint is needed; add it under `models` and name it"
                )
            return RewardModelJudge(section, model=model, engine=engine)
        case sections.IntrinsicSection():
            for name in (section.by, section.reference):
                _local(chats, name, where)
            return IntrinsicJudge(section, engine=engine)
        case sections.LikelihoodSection():
            _local(chats, section.by, where)
            return LikelihoodJudge(section, engine=engine)
        case sections.SelfConsistencySection():
            return SelfConsistencyJudge(section)
        case sections.EnsembleSection():
            rest: Any = {"chats": chats, "engine": engine, "seed": seed, "models": models}
            built = {
                name: build(member, **rest, where=f"{where}.members ({name})")
                for name, member in member_names(section).items()
            }
            return EnsembleJudge(section, members=built)
        case _:
            assert_never(section)


def build_anchor(
    section: AnchorSection,
    *,
    chats: Mapping[str, Chat],
    engine: Engine,
    seed: int,
    models: Mapping[str, ModelSection] | None = None,
) -> Anchor:
    """Return the anchor: a judge that compares, or any judge that scores. Raises RecipeError as `build` does."""
    match section:
        case sections.PairwiseAnchorSection():
            return PairwiseAnchor(section, chat=named(chats, section.by, ANCHOR), seed=seed)
        case _:
            judge = build(section, chats=chats, engine=engine, seed=seed, models=models, where=ANCHOR)
            return ScoredAnchor(judge, name=section.kind)


def member_names(section: sections.EnsembleSection) -> dict[str, sections.MemberSection]:
    """Return the members by the name `kind@by`, numbered where it is not unique."""
    plain = [f"{member.kind}@{by}" if (by := getattr(member, "by", "")) else member.kind for member in section.members]
    seen: Counter[str] = Counter()
    by_name: dict[str, sections.MemberSection] = {}
    for name, member in zip(plain, section.members, strict=True):
        seen[name] += 1
        by_name[f"{name}-{seen[name]}" if plain.count(name) > 1 else name] = member
    return by_name


def _local(chats: Mapping[str, Chat], name: str, where: str) -> None:
    if not named(chats, name, where).is_local:
        raise RecipeError(
            f"{where}: {name} is an endpoint, whose weights are not available; this kind of judge needs a local model; "
            "name one with `model: ...`"
        )
