"""What is wrong with `judging` and `evaluation.anchor`, and what a person should know of them before a run."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from selfreward import recipe
from selfreward.problems import Facts, Problem, warning
from selfreward.records import Prompt
from selfreward.roles import CHANGING, POLICY_MODELS

ANCHOR = "evaluation.anchor"

Labelling = recipe.JudgingSection | recipe.AnchorSection


def problems(section: recipe.JudgingSection, facts: Facts) -> Iterator[Problem]:
    """Of the judge that labels: by itself, beside the anchor, and beside pairing."""
    asked = facts.recipe
    fresh = chain.from_iterable(facts.source.training_prompts(t + 1) for t in range(asked.iterations.max))
    yield from of_judge(section, list(fresh))
    yield from _unenforced(section, "judging", facts)
    yield from of_shared_anchor(section, asked.evaluation, facts.weights)
    yield from of_pairing(section, asked.pairing)


def anchor_problems(section: recipe.AnchorSection, facts: Facts) -> Iterator[Problem]:
    """Of the judge that measures."""
    yield from of_judge(section, facts.source.validation_prompts(), where=ANCHOR)
    yield from _unenforced(section, ANCHOR, facts)
    yield from of_anchor(section)


def of_anchor(section: recipe.AnchorSection) -> Iterator[Problem]:
    """A judge that cannot measure, whatever the run."""
    if isinstance(section, recipe.RubricSection) and section.normalise:
        yield Problem(
            f"{ANCHOR}.normalise: z-scores depend on which responses are scored together; an anchor stays the same; "
            "remove it"
        )


def of_judge(section: Labelling, prompts: Sequence[Prompt], *, where: str = "judging") -> Iterator[Problem]:
    """What the judge cannot do with these prompts."""
    for judge in members(section):
        match judge:
            case recipe.VerifierSection() if not all(prompt.checks for prompt in prompts):
                yield warning(
                    f"{where}.kind is verifier, but some prompts have no checks: their responses stay unscored"
                )
            case recipe.RewardModelSection() if judge.by in POLICY_MODELS:
                yield Problem(
                    f"{where}.by: {judge.by} writes and does not score; a reward model has one output and no words; "
                    "add it under `models` by a name of its own"
                )
            case recipe.IntrinsicSection() if {judge.by, judge.reference} <= POLICY_MODELS:
                yield warning(
                    f"{where}.kind is intrinsic: in the first iteration {judge.by} and {judge.reference} are the same "
                    "model, so that every score is 0 and no pair is made; name another model as the reference"
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
    """Those of an ensemble; any other judge is its only one."""
    return section.members if isinstance(section, recipe.EnsembleSection) else [section]


def models_of(section: Labelling) -> frozenset[str]:
    """Names of the models that take part."""
    named = ((getattr(judge, "by", None), getattr(judge, "reference", None)) for judge in members(section))
    return frozenset(name for names in named for name in names if name is not None)


def _unenforced(section: Labelling, where: str, facts: Facts) -> Iterator[Problem]:
    """Said before responses are sampled, and not when the first one is judged."""
    for judge in members(section):
        structured = isinstance(judge, recipe.GenerativeSection) and judge.structured
        if structured and getattr(judge, "by", "") not in facts.recipe.endpoints and not facts.engine.enforces_schema:
            yield Problem(
                f"{where}.structured: engine.kind transformers cannot enforce the form of a text; vllm and endpoints "
                "can; set engine.kind to vllm, or `structured: false`"
            )


def of_pairing(section: recipe.JudgingSection, pairing: recipe.PairingSection) -> Iterator[Problem]:
    compares = isinstance(section, recipe.ComparisonSection)
    draws_once = all(getattr(judge, "num_draws", 1) < 2 for judge in members(section)) and not compares
    if pairing.label == "preference" and not compares:
        yield warning(f"pairing.label is preference, which needs a judge that compares; {section.kind} gives no pairs")
    if pairing.min_reliability is not None and draws_once:
        yield warning("pairing.min_reliability: the judge draws once, so reliability cannot be measured: no pairs")
    if "consistency" in (pairing.label, pairing.weight) and not models_of(section) & CHANGING:
        yield warning("pairing by consistency, but the judge does not change: each label and weight is 1")


def of_shared_anchor(
    section: recipe.JudgingSection, evaluation: recipe.EvaluationSection, weights: Mapping[str, str]
) -> Iterator[Problem]:
    """A judge that labels with the anchor's template and, at least at first, its weights.

    A verifier has no weights, and nobody can persuade it: it may label and measure.
    """
    anchor = evaluation.anchor
    for judge in members(section):
        if judge.kind != anchor.kind or not _start_alike(judge, anchor, weights):
            continue
        if isinstance(judge, recipe.VerifierSection):
            yield warning(
                "judging and evaluation.anchor are verifiers: the same kinds of checks label and measure, so that the "
                "outcomes say how well such checks are learned, and nothing of any other quality"
            )
        elif evaluation.anchor_may_label:
            yield warning(
                f"{_labels_and_measures(judge, anchor)}, so that its outcomes say how well the policy pleases its own "
                "judge (evaluation.anchor_may_label is true)"
            )
        else:
            yield Problem(
                f"{ANCHOR}: {_labels_and_measures(judge, anchor)}; an anchor differs from every judge that labels in "
                f"its model or its kind, for else it measures how well the policy pleases its own judge; set "
                f"{ANCHOR}.by to another model or {ANCHOR}.kind to another kind, or accept it with "
                "evaluation.anchor_may_label: true"
            )


def _start_alike(judge: Labelling, anchor: recipe.AnchorSection, weights: Mapping[str, str]) -> bool:
    """Whether both are of one model, or of names that stand for the same weights when the run begins."""
    by, measuring = getattr(judge, "by", ""), getattr(anchor, "by", "")
    same = by in weights and weights[by] == weights.get(measuring)
    return same or by == measuring or {by, measuring} <= POLICY_MODELS


def _labels_and_measures(judge: Labelling, anchor: recipe.AnchorSection) -> str:
    by, measuring = getattr(judge, "by", ""), getattr(anchor, "by", "")
    if by == measuring:
        return f"the {anchor.kind} judge by {by} both labels and measures"
    return (
        f"a {anchor.kind} judge by {by} labels, and one by {measuring} measures: in the first iteration, at least, "
        "they are one model with one template"
    )
