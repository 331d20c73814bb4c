"""Errors and warnings about `judging` and `evaluation.anchor`, found before a run."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from selfreward import recipe
from selfreward.judging.self_consistency import MIN_RESPONSES
from selfreward.problems import Facts, Problem, warning
from selfreward.records import Prompt
from selfreward.roles import CHANGING, POLICY_MODELS

ANCHOR = "evaluation.anchor"

_WITHIN_0_AND_1 = (recipe.SelfConsistencySection, recipe.ComparisonSection, recipe.VerifierSection)
Labelling = recipe.JudgingSection | recipe.AnchorSection


def problems(section: recipe.JudgingSection, facts: Facts) -> Iterator[Problem]:
    """Yield problems of the judge that labels: alone, in combination with the anchor, and with pairing."""
    run_recipe = facts.recipe
    fresh = chain.from_iterable(facts.source.training_prompts(t + 1) for t in range(run_recipe.iterations.max))
    yield from judge_problems(section, list(fresh))
    yield from _schema_problems(section, "judging", facts)
    yield from shared_model_problems(section, run_recipe.evaluation, facts.weights)
    yield from pairing_problems(section, run_recipe.pairing)
    votes = any(isinstance(judge, recipe.SelfConsistencySection) for judge in members(section))
    if votes and run_recipe.sampling.num_responses < MIN_RESPONSES:
        yield Problem(
            f"sampling.num_responses is {run_recipe.sampling.num_responses}; judging.kind self_consistency lets the "
            f"responses to a prompt vote, which needs at least {MIN_RESPONSES}; raise it, for example to 8"
        )


def anchor_problems(section: recipe.AnchorSection, facts: Facts) -> Iterator[Problem]:
    """Yield problems of the anchor."""
    yield from judge_problems(section, facts.source.validation_prompts(), where=ANCHOR)
    yield from _schema_problems(section, ANCHOR, facts)
    yield from anchor_section_problems(section)


def anchor_section_problems(section: recipe.AnchorSection) -> Iterator[Problem]:
    """Yield settings with which a judge cannot be an anchor."""
    if isinstance(section, recipe.RubricSection) and section.normalise:
        yield Problem(
            f"{ANCHOR}.normalise: z-scores depend on which responses are scored together; an anchor must stay the "
            "same; remove it"
        )


def judge_problems(section: Labelling, prompts: Sequence[Prompt], *, where: str = "judging") -> Iterator[Problem]:
    """Yield problems of the judge with these prompts."""
    for judge in members(section):
        match judge:
            case recipe.VerifierSection() if not all(prompt.checks for prompt in prompts):
                without = sum(not prompt.checks for prompt in prompts)
                yield warning(
                    f"{where}.kind is verifier, but {without} of {len(prompts)} prompts have no checks: their "
                    "responses stay unscored; give rows `checks` or a final `answer` (docs/data.md)"
                )
            case recipe.RewardModelSection() if judge.by in POLICY_MODELS:
                yield Problem(
                    f"{where}.by: {judge.by} is a generative model; a reward model is a classifier with one output; "
                    "add it under `models` by its own name"
                )
            case recipe.IntrinsicSection() if {judge.by, judge.reference} <= POLICY_MODELS:
                yield warning(
                    f"{where}.kind is intrinsic: in the first iteration {judge.by} and {judge.reference} are the same "
                    "model, so every score is 0 and no pair is made; name another model as the reference"
                )
            case recipe.ModelJudgeSection() if judge.reference_answer and not all(
                prompt.reference for prompt in prompts
            ):
                yield warning(
                    f"{where}.reference_answer: some prompts have no `reference`: their responses stay unscored"
                )
            case _:
                pass


def members(section: Labelling) -> Sequence[recipe.MemberSection | recipe.PairwiseAnchorSection]:
    """Return the members of an ensemble; any other judge is its own only member."""
    return section.members if isinstance(section, recipe.EnsembleSection) else [section]


def models_of(section: Labelling) -> frozenset[str]:
    """Return the names of the models that the judge uses."""
    named = ((getattr(judge, "by", None), getattr(judge, "reference", None)) for judge in members(section))
    return frozenset(name for names in named for name in names if name is not None)


def _schema_problems(section: Labelling, where: str, facts: Facts) -> Iterator[Problem]:
    """Yield `structured` members that the engine cannot serve, before any response is sampled."""
    for judge in members(section):
        structured = isinstance(judge, recipe.GenerativeSection) and judge.structured
        if structured and getattr(judge, "by", "") not in facts.recipe.endpoints and not facts.engine.enforces_schema:
            yield Problem(
                f"{where}.structured: engine.kind transformers cannot enforce a JSON schema; vllm and endpoints "
                "can; set engine.kind to vllm, or `structured: false`"
            )


def pairing_problems(section: recipe.JudgingSection, pairing: recipe.PairingSection) -> Iterator[Problem]:
    compares = isinstance(section, recipe.ComparisonSection)
    draws_once = all(getattr(judge, "num_draws", 1) < 2 for judge in members(section)) and not compares
    if pairing.label == "preference" and not compares:
        yield warning(
            f"pairing.label is preference, which needs a judge that compares; with {section.kind} no pairs are made"
        )
    if pairing.min_reliability is not None and draws_once:
        yield warning(
            "pairing.min_reliability: the judge draws once, so reliability cannot be measured and no pairs are made"
        )
    if pairing.weight == "margin" and not isinstance(section, _WITHIN_0_AND_1):
        yield Problem(
            f"pairing.weight is margin, the difference of the scores of a judge, which must lie in [0, 1]; those of "
            f"{section.kind} do not; use `weight: equal`, or a judge such as self_consistency or pairwise"
        )
    if "consistency" in (pairing.label, pairing.weight) and not models_of(section) & CHANGING:
        yield warning("pairing by consistency, but the judge does not change: each label and weight is 1")


def shared_model_problems(
    section: recipe.JudgingSection, evaluation: recipe.EvaluationSection, weights: Mapping[str, str]
) -> Iterator[Problem]:
    """Yield judges that label with the anchor's template and, at least initially, its weights.

    A verifier has no weights and cannot be persuaded, so it may both label and measure.
    """
    anchor = evaluation.anchor
    for judge in members(section):
        if judge.kind != anchor.kind or not _same_model_at_start(judge, anchor, weights):
            continue
        if isinstance(judge, recipe.VerifierSection):
            yield warning(
                "judging and evaluation.anchor are verifiers: the same kinds of checks label and measure, so the "
                "outcomes show how well such checks are learned, and nothing about any other quality"
            )
        elif evaluation.anchor_may_label:
            yield warning(
                f"{_labels_and_measures(judge, anchor)}, so its outcomes show how well the policy pleases its own "
                "judge (evaluation.anchor_may_label is true)"
            )
        else:
            yield Problem(
                f"{ANCHOR}: {_labels_and_measures(judge, anchor)}; an anchor must differ from every judge that labels "
                f"in its model or its kind, otherwise it measures how well the policy pleases its own judge; set "
                f"{ANCHOR}.by to another model or {ANCHOR}.kind to another kind, or accept it with "
                "evaluation.anchor_may_label: true"
            )


def _same_model_at_start(judge: Labelling, anchor: recipe.AnchorSection, weights: Mapping[str, str]) -> bool:
    """Whether both use one model, or names that refer to the same weights when the run begins."""
    by, measuring = getattr(judge, "by", ""), getattr(anchor, "by", "")
    same = by in weights and weights[by] == weights.get(measuring)
    return same or by == measuring or {by, measuring} <= POLICY_MODELS


def _labels_and_measures(judge: Labelling, anchor: recipe.AnchorSection) -> str:
    by, measuring = getattr(judge, "by", ""), getattr(anchor, "by", "")
    if by == measuring:
        return f"the {anchor.kind} judge by {by} both labels and measures"
    return (
        f"a {anchor.kind} judge by {by} labels, and one by {measuring} measures: at least in the first iteration "
        "they are one model with one template"
    )
