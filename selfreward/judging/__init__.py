"""Who scores responses, and who compares them: one file per judge."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import assert_never

from selfreward import recipe
from selfreward.errors import RecipeError
from selfreward.parts import Chat, Engine, Judge, PairwiseJudge
from selfreward.records import Prompt


def build(
    section: recipe.JudgingSection,
    *,
    chats: Mapping[str, Chat],
    engine: Engine,
    seed: int,
    trust_remote_code: bool = False,
    where: str = "judging",
) -> Judge:
    """The judge that labels. `chats` are all models by name; raises RecipeError for any other `by`."""
    match section:
        case recipe.AdditiveJudge():
            from selfreward.judging.additive import AdditiveJudge

            return AdditiveJudge(section, chat=_named(chats, section.by, where), seed=seed)
        case recipe.ExpectedScoreJudge():
            from selfreward.judging.expected_score import ExpectedScoreJudge

            return ExpectedScoreJudge(section, chat=_named(chats, section.by, where), seed=seed)
        case recipe.PairwiseJudge():
            from selfreward.judging.pairwise import PairwiseJudge as Pairwise

            return Pairwise(section, chat=_named(chats, section.by, where), seed=seed)
        case recipe.RubricJudge():
            from selfreward.judging.rubric import RubricJudge

            return RubricJudge(section, chat=_named(chats, section.by, where), seed=seed)
        case recipe.ConstitutionJudge():
            from selfreward.judging.constitution import ConstitutionJudge

            return ConstitutionJudge(section, chat=_named(chats, section.by, where), seed=seed)
        case recipe.VerifierJudge():
            from selfreward.judging.verifier import VerifierJudge

            return VerifierJudge(section)
        case recipe.RewardModelJudge():
            from selfreward.judging.reward_model import RewardModelJudge

            if section.by in OF_THE_RUN:
                raise RecipeError(
                    f"{where}.by: {section.by} writes and does not score; a reward model has one output and no words; "
                    "add it under `models` by a name of its own"
                )
            _local(chats, section.by, where)
            return RewardModelJudge(section, trust_remote_code=trust_remote_code)
        case recipe.IntrinsicJudge():
            from selfreward.judging.intrinsic import IntrinsicJudge

            for name in (section.by, section.reference):
                _local(chats, name, where)
            return IntrinsicJudge(section, engine=engine)
        case recipe.EnsembleJudge():
            from selfreward.judging.ensemble import EnsembleJudge

            built = {
                name: build(
                    member,
                    chats=chats,
                    engine=engine,
                    seed=seed,
                    trust_remote_code=trust_remote_code,
                    where=f"{where}.members ({name})",
                )
                for name, member in member_names(section).items()
            }
            return EnsembleJudge(section, members=built)
        case _:
            assert_never(section)


def member_names(section: recipe.EnsembleJudge) -> dict[str, recipe.MemberSection]:
    """Members by `kind@by`, numbered where that is not enough."""
    plain = [f"{member.kind}@{by}" if (by := getattr(member, "by", "")) else member.kind for member in section.members]
    seen: Counter[str] = Counter()
    named: dict[str, recipe.MemberSection] = {}
    for name, member in zip(plain, section.members, strict=True):
        seen[name] += 1
        named[f"{name}-{seen[name]}" if plain.count(name) > 1 else name] = member
    return named


ANCHOR = "evaluation.anchor"


def build_anchor(
    section: recipe.AnchorSection,
    *,
    chats: Mapping[str, Chat],
    engine: Engine,
    seed: int,
    trust_remote_code: bool = False,
) -> PairwiseJudge:
    """The judge that measures: one that compares, or any that scores. Raises RecipeError as `build` does."""
    if isinstance(section, recipe.PairwiseAnchor):
        from selfreward.judging.pairwise import PairwiseJudge as Pairwise

        return Pairwise(section, chat=_named(chats, section.by, ANCHOR), seed=seed)
    if isinstance(section, recipe.RubricJudge) and section.normalise:
        raise RecipeError(
            f"{ANCHOR}.normalise: z-scores depend on which responses are scored together; an anchor stays the same; "
            "remove it"
        )
    from selfreward.judging.scored_anchor import ScoredAnchor

    judge = build(section, chats=chats, engine=engine, seed=seed, trust_remote_code=trust_remote_code, where=ANCHOR)
    return ScoredAnchor(judge, name=section.kind)


def _local(chats: Mapping[str, Chat], name: str, where: str) -> None:
    if not _named(chats, name, where).is_local:
        raise RecipeError(
            f"{where}: {name} is an endpoint, whose weights are not here; this kind of judge needs them; name a model "
            "with `model: ...`"
        )


def _named(chats: Mapping[str, Chat], name: str, where: str) -> Chat:
    if name not in chats:
        meant = difflib.get_close_matches(name, chats, n=1)
        hint = f"did you mean {meant[0]!r}?" if meant else "name one of these, or add the model under `models`"
        raise RecipeError(f"{where}.by: there is no model {name!r}; there are {', '.join(chats)}; {hint}")
    return chats[name]


OF_THE_RUN = {"policy", "initial", "best"}


def warnings(
    section: recipe.JudgingSection | recipe.AnchorSection, prompts: Sequence[Prompt], *, where: str = "judging"
) -> list[str]:
    """What a person should know of this judge before it sees responses to these prompts; a sentence each."""
    found = []
    for member in [section] if isinstance(section, recipe.PairwiseAnchor) else members(section):
        if isinstance(member, recipe.VerifierJudge) and not all(prompt.checks for prompt in prompts):
            found.append(f"{where}.kind is verifier, but some prompts have no checks: their responses stay unscored")
        if getattr(member, "reference_answer", False) and not all(prompt.reference for prompt in prompts):
            found.append(f"{where}.reference_answer: some prompts have no `reference`: their responses stay unscored")
        if isinstance(member, recipe.IntrinsicJudge) and {member.by, member.reference} <= OF_THE_RUN:
            found.append(
                f"{where}.kind is intrinsic: in the first iteration {member.by} and {member.reference} are the same "
                "model, so that every score is 0 and no pair is made; name another model as the reference"
            )
    return found


def warnings_of_a_run(
    section: recipe.JudgingSection,
    *,
    by: frozenset[str],
    anchor: recipe.AnchorSection,
    pairing: recipe.PairingSection,
) -> list[str]:
    """What a person should know of this judge, `by` these models, beside this anchor and pairing; a sentence each."""
    found = []
    compares = isinstance(section, recipe.Comparing)
    draws_once = all(getattr(member, "num_draws", 1) < 2 for member in members(section)) and not compares
    if pairing.label == "preference" and not compares:
        found.append(f"pairing.label is preference, which needs a judge that compares; {section.kind} gives no pairs")
    if pairing.min_reliability is not None and draws_once:
        found.append("pairing.min_reliability: the judge draws once, so reliability cannot be measured: no pairs")
    if "consistency" in (pairing.label, pairing.weight) and not by & {"policy", "best"}:
        found.append("pairing by consistency, but the judge does not change: each label and weight is 1")
    for shared in _shared_with(anchor, section, {}):
        if isinstance(shared, recipe.VerifierJudge):
            found.append(
                "judging and evaluation.anchor are verifiers: the same kinds of checks label and measure, so that the "
                "outcomes say how well such checks are learned, and nothing of any other quality"
            )
        else:
            found.append(
                f"{_labels_and_measures(shared, anchor)}, so that its outcomes say how well the policy pleases its own "
                "judge (evaluation.anchor_may_label is true)"
            )
    return found


def refuse_shared_anchor(
    section: recipe.JudgingSection,
    *,
    anchor: recipe.AnchorSection,
    may_label: bool,
    weights: Mapping[str, str] | None = None,
) -> None:
    """Raises RecipeError when a judge that labels has the anchor's template and, at least at first, its weights.

    `weights` tells of each model's name what stands behind it, so that a second name hides nothing.

    A verifier has no weights, and nobody can persuade it: it may label and measure, and `warnings_of_a_run` says so.
    """
    alike = _shared_with(anchor, section, weights or {})
    shared = [judge for judge in alike if not isinstance(judge, recipe.VerifierJudge)]
    if shared and not may_label:
        raise RecipeError(
            f"{ANCHOR}: {_labels_and_measures(shared[0], anchor)}; an anchor differs from every judge that labels in "
            f"its model or its kind, for else it measures how well the policy pleases its own judge; set {ANCHOR}.by "
            f"to another model or {ANCHOR}.kind to another kind, or accept it with evaluation.anchor_may_label: true"
        )


def _labels_and_measures(judge: recipe.MemberSection, anchor: recipe.AnchorSection) -> str:
    by, measuring = getattr(judge, "by", ""), getattr(anchor, "by", "")
    if by == measuring:
        return f"the {anchor.kind} judge by {by} both labels and measures"
    return (
        f"a {anchor.kind} judge by {by} labels, and one by {measuring} measures: in the first iteration, at least, "
        "they are one model with one template"
    )


def _shared_with(
    anchor: recipe.AnchorSection, section: recipe.JudgingSection, weights: Mapping[str, str]
) -> list[recipe.MemberSection]:
    """The judges of `section` that ask as the anchor does, of a model that is or starts as the anchor's."""
    measuring = getattr(anchor, "by", "")

    def starts_alike(by: str) -> bool:
        known = by in weights and weights[by] == weights.get(measuring)
        return known or by == measuring or {by, measuring} <= OF_THE_RUN

    return [j for j in members(section) if j.kind == anchor.kind and starts_alike(getattr(j, "by", ""))]


def members(section: recipe.JudgingSection) -> Sequence[recipe.MemberSection]:
    """Those of an ensemble; any other judge is its only one."""
    return section.members if isinstance(section, recipe.EnsembleJudge) else [section]
