"""Complete runs on random:tiny with judges, selectors and labels that one iteration of expected_score does not
cover."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.endpoint_server import EndpointServer, Exchange, answer_to, status

from selfreward import history, loop, recipe_file
from selfreward.commands.export import Exported, export_pairs
from selfreward.launch import local
from selfreward.model_files import materialise
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.parts import Judge, Models
from selfreward.recipe import Recipe
from selfreward.records import Checkpoint, Judgment, Message, PreferencePair, Prompt, Response
from selfreward.requests import ChatRequest, Reply
from selfreward.roles import Roles
from selfreward.store import Store
from selfreward.tables import BATTLES, INITIAL_RESPONSES, JUDGMENTS, PAIRS, PROMPTS, RESPONSES
from selfreward.workload import Lengths, Requests, Workload

FAST = ("iterations.num_prompts_per_iteration=4", "evaluation.num_prompts=2", "evaluation.verifiable=null")


def recipe_of(folder: Path, *overrides: str, iterations: int = 1) -> Recipe:
    settings = (f"output_dir={folder / 'run'}", f"iterations.max={iterations}", *FAST, *overrides)
    return recipe_file.load(Path("recipes/tiny.yaml"), settings)


def run(recipe: Recipe, *, wrap: Callable[[Judge], Judge] | None = None, speaker: Any = None) -> Store:
    folder = Path(recipe.output_dir)
    with Store(folder, name=recipe.name) as store:
        tools = local.prepare(recipe, store)
        if speaker is not None:  # in the place of the policy where judgments are judged
            tools = dataclasses.replace(tools, chats={**tools.chats, "policy": speaker})
        judge = wrap(tools.judge(recipe)) if wrap else None
        parts = local.parts_of(recipe, store, tools, judge=judge)
        try:
            loop.run(parts, store)
        finally:
            parts.engine.close()
    return Store(folder, write=False)


def pairs_of(store: Store, iteration: int) -> list[PreferencePair]:
    return list(store.read(iteration, PAIRS))


def test_preferences_of_a_comparing_judge_are_soft_labels_of_several_pairs(tmp_path: Path) -> None:
    store = run(
        recipe_of(
            tmp_path,
            "judging={kind: pairwise}",
            "evaluation.anchor_may_label=true",
            "pairing={kind: top_k, k: 2, label: preference, allow_truncated_chosen: true}",
        )
    )
    pairs = pairs_of(store, 1)
    assert pairs and all(0.5 < pair.label < 1 for pair in pairs)
    judgments = list(store.read(1, JUDGMENTS))
    for pair in pairs:
        direct = [j.score for j in judgments if (j.response_id, j.other_id) == (pair.chosen_id, pair.rejected_id)]
        assert pair.label == pytest.approx(sum(direct) / 2) and len(direct) == 2
    (summary,), _, _ = history.read_history(store)
    assert summary.counts["num_prompts"] == 4
    assert summary.judging is not None and "judge_position_consistency_rate" in summary.judging.metrics


def test_rejected_from_m_0_and_labels_by_agreement_with_the_previous_judge(tmp_path: Path) -> None:
    pairing = "pairing={kind: initial_rejected, label: consistency, allow_truncated_chosen: true}"
    store = run(recipe_of(tmp_path, pairing, "judging.num_draws=1", iterations=2))
    first, second = pairs_of(store, 1), pairs_of(store, 2)
    assert {pair.label for pair in first} == {1.0} and not store.has(1, INITIAL_RESPONSES)
    (label,) = {pair.label for pair in second}  # one for the shard
    assert 0.5 < label <= 1
    initial = {r.id for r in store.read(2, INITIAL_RESPONSES)}
    policy_lowest: dict[str, float] = {}
    for j in store.read(2, JUDGMENTS):
        if j.response_id not in initial and j.score is not None:
            policy_lowest[j.prompt_id] = min(policy_lowest.get(j.prompt_id, 9.0), j.score)
    for pair in second:
        assert pair.chosen_id not in initial
        assert (pair.rejected_id in initial) == (pair.rejected_score < policy_lowest[pair.prompt_id])
    assert any(pair.rejected_id in initial for pair in second)
    summaries, _, _ = history.read_history(store)
    assert summaries[1].judging is not None and "judge_tau_previous" in summaries[1].judging.metrics


class Scored:
    """The run's additive judge, with fake verdicts, which a random model cannot write."""

    def __init__(self, judge: Judge) -> None:
        self.judge_itself = judge
        self.by, self.scale = judge.by, judge.scale

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        return self.judge_itself.max_requests(work, lengths)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        judged = self.judge_itself.judge(prompts, responses, models=models, iteration=iteration)
        # As if each were complete: a truncated judgment is not trained on.
        verdicts = {j.id: float(sum(j.token_ids) % 6) for j in judged}
        return [dataclasses.replace(j, score=verdicts[j.id], unscored=None, finish_reason="stop") for j in judged]


class Longer:
    """A meta-judge's model that prefers the longer of two judgments, in any position."""

    by = "policy"
    is_local = True

    def usage(self) -> dict[str, float]:
        return {}

    def model_id(self, models: Models) -> str:
        return models["policy"].id

    def reply(self, requests: Sequence[ChatRequest], *, models: dict[str, Checkpoint]) -> list[list[Reply]]:
        return [[Reply(text=self._verdict(request.messages[0].content), finish_reason="stop")] for request in requests]

    def _verdict(self, question: str) -> str:
        first, second = question.split("Judgment A:\n\n<")[1].split("Judgment B:\n\n<")
        return f"The better judgment is Judgment {'A' if len(first) > len(second) else 'B'}"


def test_judgments_are_trained_on_like_responses(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path, "judging={kind: additive, num_draws: 3, max_tokens: 12, temperature: 1.0, top_p: 1.0}",
        "meta_judging={iterations: [1], max_share: 0.5}", "training.reference_logprobs=sampler", iterations=2,
    )  # fmt: skip
    store = run(recipe, wrap=Scored, speaker=Longer())
    assert {battle.unscored for battle in store.read(1, BATTLES)} == {None}
    kinds = [pair.kind for pair in pairs_of(store, 1)]
    judgment_pairs = [pair for pair in pairs_of(store, 1) if pair.kind == "judgment"]
    assert judgment_pairs and kinds.count("judgment") <= kinds.count("response")
    judgments = {j.id: j for j in store.read(1, JUDGMENTS)}
    for pair in judgment_pairs:
        chosen, rejected = judgments[pair.chosen_id], judgments[pair.rejected_id]
        assert chosen.response_id == rejected.response_id
        assert pair.prompt_token_ids == chosen.prompt_token_ids == rejected.prompt_token_ids
        assert (pair.chosen_token_ids, pair.rejected_token_ids) == (chosen.token_ids, rejected.token_ids)
        assert len(pair.chosen_text) >= len(pair.rejected_text)
    # Exported, the prompt is the question whose tokens were trained on.
    exported = export_pairs(store.folder, tmp_path / "pairs.jsonl", kind="judgment")
    assert exported == Exported(len(judgment_pairs))
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()]
    tokenizer = ChatTokenizer(materialise(recipe.policy))
    asked = [tokenizer.encode([Message(**message) for message in row["prompt"]]) for row in rows]
    assert asked == [pair.prompt_token_ids for pair in judgment_pairs]
    summaries, _, _ = history.read_history(store)
    assert summaries[0].counts["num_judgment_pairs"] == len(judgment_pairs)
    assert summaries[0].training["num_pairs"] == len(kinds)
    # Reference log-probabilities of judgments come from the engine that sampled them, as those of responses do.
    assert summaries[0].training["num_sampler_logprobs"] == 2 * len(kinds)
    assert not store.has(2, BATTLES) and summaries[1].counts.get("num_judgment_pairs", 0) == 0


def test_what_an_endpoint_does_not_support_is_told_once_and_stands_in_the_report(tmp_path: Path) -> None:
    def refuse_temperature(exchange: Exchange, body: dict[str, Any]) -> None:
        exchange.owner.misbehaviours.append(refuse_temperature)
        answer = status(400, "Unsupported parameter: 'temperature'") if "temperature" in body else None
        answer(exchange, body) if answer else exchange.send(200, answer_to({"seed": 0, **body}))

    told: list[str] = []
    with EndpointServer() as server:
        server.misbehaviours.extend([refuse_temperature] * 4)
        recipe = recipe_of(
            tmp_path, f"models.gpt={{endpoint: '{server.url}', model: m, max_concurrency: 4}}",
            "judging={kind: additive, by: gpt, num_draws: 2}",
        )  # fmt: skip
        local.run(recipe, progress=lambda what, _, text, __: told.append(text) if what == "warning" else None)
    assert sum("does not support temperature" in text for text in told) == 1
    folder = Path(recipe.output_dir)
    assert "does not support temperature" in json.loads((folder / "report.json").read_text())["note"]
    assert "does not support temperature" in (folder / "iteration-01" / "report.md").read_text()


def test_a_run_whose_judge_is_an_endpoint_resumes_without_paying_twice(tmp_path: Path) -> None:
    def verdict(body: dict[str, Any]) -> dict[str, Any]:
        answer = answer_to(body)
        for choice in answer["choices"]:
            choice["message"]["content"] = f"Fine.\nScore: {len(body['messages'][0]['content']) % 6}"
        return answer

    with EndpointServer() as server:
        server.answer = verdict
        recipe = recipe_of(
            tmp_path, f"models.gpt={{endpoint: '{server.url}', model: m, price: {{prompt: 1.0, generated: 2.0}}}}",
            "judging={kind: additive, by: gpt, num_draws: 2}",
        )  # fmt: skip
        store = run(recipe)
        paid = len(server.answered)
        assert paid > 0
        # As if the judgments had been lost before they were stored: the replies were not.
        with Store(Path(recipe.output_dir), name=recipe.name) as again:
            tools = local.prepare(recipe, again)
            prompts, responses = list(again.read(1, PROMPTS)), list(again.read(1, RESPONSES))
            judged = tools.judge(recipe).judge(prompts, responses, models=Roles.at_start(tools.models), iteration=1)
        assert len(server.answered) == paid
        assert [j.score for j in judged] == [j.score for j in store.read(1, JUDGMENTS)]
    (summary,), _, _ = history.read_history(store)
    assert summary.usage_by_stage["judgments"]["cost"] > 0
    assert summary.judging is not None and summary.judging.not_measured["judge_tau_previous"] == (
        "the judge is the same in every iteration"
    )
