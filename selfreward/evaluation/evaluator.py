"""Collects what an evaluation needs, stage by stage, then measures, and writes an outcome for each prompt.

Every expensive step is a stage of the store, so a killed evaluation goes on where it was. The order of the stages
lets the engine hold each model once: M_t responds and scores itself, M_{t-1} scores and judges, the anchor compares,
M_0 scores. Responses of earlier checkpoints are those that were stored when these were evaluated themselves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfreward.evaluation.collecting import Collector
from selfreward.evaluation.judge import JudgeEvaluator
from selfreward.evaluation.metrics import (
    HeldOutResponses,
    Rivalry,
    Sheet,
    measure,
    measure_anchor,
    passes,
    put_win_rates,
)
from selfreward.evaluation.outcomes import (
    OUTCOMES,
    RESERVE_OUTCOMES,
    SEAL_OUTCOMES,
    check_outcomes,
    length_deltas,
    rows,
)
from selfreward.evaluation.preference import Outcome, outcomes
from selfreward.evaluation.responding import Decoding
from selfreward.evaluation.self_judge import self_judgments, self_outcomes
from selfreward.parts import Judge, Judged, Models, PromptSource, Stages
from selfreward.records import Checkpoint, Comparison, Evaluation, PromptOutcome, Response
from selfreward.seeding import seed_of

RESPONSES = "evaluation_responses"
VERIFIABLE_RESPONSES = "evaluation_verifiable_responses"
KL_RESPONSES = "evaluation_kl_responses"
LOGPROBS = "evaluation_logprobs"  # and _policy, _previous or _initial
COMPARISONS = "evaluation_comparisons"
RESERVE_RESPONSES = "evaluation_reserve_responses"  # M_t's; and _previous or _best, where these had none of their own
RESERVE_COMPARISONS = "evaluation_reserve_comparisons"
SEAL_RESPONSES = "evaluation_seal_responses"  # and _best or _initial
SEAL_COMPARISONS = "evaluation_seal_comparisons"
SEAL_WIN_RATE = "seal_win_rate_vs_initial"

KL_PROMPTS = 32


@dataclass(frozen=True)
class HeldOutEvaluator:
    """Win rates, pass rate, length, variety and divergence of M_t. `self_judge` is None where it is not to be asked."""

    prompts: PromptSource
    collector: Collector
    self_judge: Judge | None
    judge_evaluator: JudgeEvaluator
    seed: int

    def evaluate(self, stages: Stages, iteration: int, *, models: Models, previous: Checkpoint | None) -> Evaluation:
        """Measures M_t, `models["policy"]`, against M_{t-1}, M_0 and the best; without `previous` M_t alone.

        The best, `models["best"]`, is a rival of its own only when it is neither of the two. Raises StoreError when a
        rival was not evaluated before or on other prompts, and what the engine, the judge and the anchor raise.
        """
        own = self._held_out(stages, iteration, models["policy"])
        first, rivalries = own, dict[str, Rivalry]()
        comparisons: list[Comparison] = []
        if previous is not None:
            rivals = _rivals(previous, models["initial"], models["best"])
            rivalries, comparisons = self._rivalries(stages, iteration, own, rivals, models=models)
            first = rivalries["initial"].held_out
            against = {rivals[name].iteration: rivalry for name, rivalry in rivalries.items()}
            stages.once(iteration, OUTCOMES, PromptOutcome, 0, lambda: self._rows(own, against))
        return measure(
            iteration,
            own=own,
            initial=first,
            rivals=list(rivalries.values()),
            comparisons=comparisons,
            verifiable_prompts=self.prompts.verifiable_prompts(),
            max_tokens=self.collector.decoding.max_tokens,
            seed=self.seed,
        )

    def ask_reserve(self, stages: Stages, iteration: int, *, models: Models, previous: Checkpoint) -> None:
        """M_t against M_{t-1} and the best, by the anchor. Raises as `evaluate` does."""
        prompts = self.prompts.reserve_prompts()
        own = self.collector.responses(stages, iteration, RESERVE_RESPONSES, prompts, model=models["policy"])
        rivals = {"previous": previous}
        if models["best"].iteration != previous.iteration:
            rivals["best"] = models["best"]
        theirs = {r.iteration: self._reserve_responses_of(stages, iteration, name, r) for name, r in rivals.items()}
        sides = list(theirs.values())
        comparisons = self.collector.comparisons(
            stages, iteration, RESERVE_COMPARISONS, prompts, own, sides, models=models
        )

        def made() -> list[PromptOutcome]:
            return [
                row
                for against, side in theirs.items()
                for row in rows(
                    outcomes(own, side, comparisons, sides), own, side, set="reserve", by="anchor", against=against
                )
            ]

        stages.once(iteration, RESERVE_OUTCOMES, PromptOutcome, 0, made)

    def open_seal(self, stages: Stages, iteration: int, *, models: Models) -> Evaluation:
        """M_best against M_0, by the anchor. Raises as `evaluate` does."""
        best, initial = models["best"], models["initial"]
        prompts = self.prompts.seal_prompts()
        sheet = Sheet()
        found: list[PromptOutcome] = []
        if not prompts:
            put_win_rates(sheet, SEAL_WIN_RATE, "there are no seal prompts", [], seed=self.seed)
        elif best.iteration == initial.iteration:
            put_win_rates(sheet, SEAL_WIN_RATE, "the best checkpoint is M_0 itself", [], seed=self.seed)
        else:
            ours, theirs = (
                self.collector.responses(
                    stages, iteration, SEAL_RESPONSES, prompts,
                    model=model, stored_as=f"{SEAL_RESPONSES}_{name}", of_iteration=model.iteration,
                )
                for name, model in (("best", best), ("initial", initial))
            )  # fmt: skip
            comparisons = self.collector.comparisons(
                stages, iteration, SEAL_COMPARISONS, prompts, ours, [theirs], models=models
            )
            by_prompt = outcomes(ours, theirs, comparisons, [theirs])
            found = rows(by_prompt, ours, theirs, set="seal", by="anchor", against=initial.iteration)
            put_win_rates(sheet, SEAL_WIN_RATE, by_prompt, length_deltas(ours, theirs), seed=self.seed)
            measure_anchor(sheet, comparisons, by_prompt, seed=self.seed)
        stages.once(iteration, SEAL_OUTCOMES, PromptOutcome, 0, lambda: found)
        return Evaluation(iteration, sheet.metrics, sheet.not_measured)

    def evaluate_judge(self, stages: Stages, iteration: int, *, judged: Iterable[Judged], models: Models) -> Evaluation:
        return self.judge_evaluator.evaluate(stages, iteration, judged=judged, models=models)

    def _rivalries(
        self,
        stages: Stages,
        iteration: int,
        own: HeldOutResponses,
        rivals: Mapping[str, Checkpoint],
        *,
        models: Models,
    ) -> tuple[dict[str, Rivalry], list[Comparison]]:
        """By the names of `rivals`. In the first iteration M_{t-1} is M_0, and all is done once."""
        draws = self._draws(stages, iteration, models["policy"])
        logprobs = {"policy": self._logprobs(stages, iteration, "policy", draws, models["policy"])}
        previous, initial = rivals["previous"], rivals["initial"]
        if previous.iteration != initial.iteration:
            logprobs["previous"] = self._logprobs(stages, iteration, "previous", draws, previous)
        held_out = {name: self._held_out_of(stages, rival) for name, rival in rivals.items()}
        by_self = self._asked_judge(stages, iteration, own, held_out, models={**models, "policy": previous})
        sides = [side.monitor for side in held_out.values()]
        comparisons = self.collector.comparisons(
            stages, iteration, COMPARISONS, self.prompts.monitor_prompts(), own.monitor, sides, models=models
        )
        logprobs["initial"] = self._logprobs(stages, iteration, "initial", draws, initial)
        logprobs.setdefault("previous", logprobs["initial"])
        return {
            name: Rivalry(
                name,
                side,
                outcomes(own.monitor, side.monitor, comparisons, sides),
                logprobs["policy"] if name in logprobs else None,
                logprobs.get(name),
                by_self[name],
            )
            for name, side in held_out.items()
        }, comparisons

    def _asked_judge(
        self,
        stages: Stages,
        iteration: int,
        own: HeldOutResponses,
        held_out: Mapping[str, HeldOutResponses],
        *,
        models: Models,
    ) -> dict[str, Sequence[Outcome] | str]:
        """What the judge of this iteration, with `models` as they were when it labelled, thinks of M_t."""
        if self.self_judge is None:
            return dict.fromkeys(held_out, "evaluation.self_judge is false")
        sides = [own.monitor, *(side.monitor for side in held_out.values())]
        judgments = self_judgments(
            stages, iteration, self.prompts.monitor_prompts(), sides,
            judge=self.self_judge, models=models, size=self.collector.shard_prompts,
        )  # fmt: skip
        return {name: self_outcomes(own.monitor, side.monitor, judgments, sides) for name, side in held_out.items()}

    def _rows(self, own: HeldOutResponses, against: Mapping[int, Rivalry]) -> list[PromptOutcome]:
        """Of all judges against each rival, by its iteration."""
        prompts = self.prompts.verifiable_prompts()
        passed = passes(prompts, own)
        found: list[PromptOutcome] = []
        for k, rival in against.items():
            monitor, verifiable = rival.held_out.monitor, rival.held_out.verifiable
            found += rows(rival.outcomes, own.monitor, monitor, set="monitor", by="anchor", against=k)
            if not isinstance(rival.self_outcomes, str):
                found += rows(rival.self_outcomes, own.monitor, monitor, set="monitor", by="self", against=k)
            checked = check_outcomes(own.verifiable, passed, passes(prompts, rival.held_out))
            found += rows(checked, own.verifiable, verifiable, set="verifiable", by="checks", against=k)
        return found

    def _held_out(self, stages: Stages, iteration: int, model: Checkpoint) -> HeldOutResponses:
        """What `model` responds to the monitor and the verifiable prompts."""
        return HeldOutResponses(
            self.collector.responses(stages, iteration, RESPONSES, self.prompts.monitor_prompts(), model=model),
            self.collector.responses(
                stages, iteration, VERIFIABLE_RESPONSES, self.prompts.verifiable_prompts(), model=model
            ),
        )

    def _held_out_of(self, stages: Stages, rival: Checkpoint) -> HeldOutResponses:
        """What an earlier checkpoint responded when it was evaluated."""
        return HeldOutResponses(
            self.collector.evaluated_responses(stages, RESPONSES, self.prompts.monitor_prompts(), model=rival),
            self.collector.evaluated_responses(
                stages, VERIFIABLE_RESPONSES, self.prompts.verifiable_prompts(), model=rival
            ),
        )

    def _reserve_responses_of(self, stages: Stages, iteration: int, name: str, rival: Checkpoint) -> list[Response]:
        """Those that the rival's own iteration stored; else they are made now and stored here, by its `name`."""
        prompts = self.prompts.reserve_prompts()
        if stages.has(rival.iteration, RESERVE_RESPONSES):
            return self.collector.evaluated_responses(stages, RESERVE_RESPONSES, prompts, model=rival)
        return self.collector.responses(
            stages, iteration, RESERVE_RESPONSES, prompts,
            model=rival, stored_as=f"{RESERVE_RESPONSES}_{name}", of_iteration=rival.iteration,
        )  # fmt: skip

    def _draws(self, stages: Stages, iteration: int, policy: Checkpoint) -> list[Response]:
        """Draws of the policy's own distribution, which a KL estimate needs and greedy responses are not."""
        prompts = sorted(self.prompts.monitor_prompts(), key=lambda p: seed_of(self.seed, 0, KL_RESPONSES, p.id))
        unaltered = Decoding(temperature=1.0, top_p=1.0, max_tokens=self.collector.decoding.max_tokens)
        return self.collector.responses(
            stages, iteration, KL_RESPONSES, prompts[:KL_PROMPTS], model=policy, decoding=unaltered
        )

    def _logprobs(
        self, stages: Stages, iteration: int, name: str, draws: Sequence[Response], model: Checkpoint
    ) -> list[float]:
        """M_t's own draws go through `score` too: what its rounding differs from sampling by would look like KL."""
        return self.collector.logprobs(stages, iteration, f"{LOGPROBS}_{name}", draws, model=model)


def _rivals(previous: Checkpoint, initial: Checkpoint, best: Checkpoint) -> dict[str, Checkpoint]:
    rivals = {"previous": previous, "initial": initial}
    third = best.iteration not in (previous.iteration, initial.iteration)
    return rivals | ({"best": best} if third else {})
