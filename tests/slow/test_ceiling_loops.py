"""Whole runs on `random:tiny`, each with a known end: all solved, a judge exploited, a judge of noise, a disaster.

Everything is real: sampling, judging, DPO, the anchor's outcomes, the decision. The judges that pay for length and that
guess are written here, as a user would write them; the sabotage is a learning rate.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from selfreward import history, loop, recipe_file
from selfreward.compose import compose
from selfreward.launch import local
from selfreward.recipe import Recipe
from selfreward.records import Judgment
from selfreward.seeding import seed_of
from selfreward.store import Store

RECIPE = """
name: ceiling
models: {policy: {model: "random:tiny"}}
engine: {kind: transformers, dtype: float32, context_tokens: 256}
sampling: {num_responses: 4, temperature: 1.0, top_p: 1.0, max_tokens: 12}
judging: {kind: verifier}
pairing: {kind: best_vs_worst, allow_truncated_chosen: true}
training: {learning_rate: 1.0e-3, lr_scheduler: constant, batch_size: 8}
evaluation:
  anchor: {kind: verifier}
  num_prompts: 240
  verifiable: null
  num_judge_prompts: 0
  temperature: 1.0
monitor: {horizon: 8, delta: 0.05}
"""
NO_LETTERS = [{"kind": "regex", "pattern": p, "must_match": False} for p in ("[a-f]", "[g-l]", "[m-r]", "[s-z]")]
RARE_AND_COMMON = [{"kind": "regex", "pattern": p} for p in ("[a-m]", "[n-z]", "[A-Z]", "[0-9]")]
FIRST_LETTER = [{"kind": "regex", "pattern": "^[a-m]"}]


def recipe(folder: Path, checks: list[dict[str, object]], *overrides: str) -> Recipe:
    rows = [{"id": f"p{i}", "prompt": f"Write {i * 7919 % 100003}", "checks": checks} for i in range(1100)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = [f"output_dir={folder / 'run'}", f"prompts={{kind: file, path: {folder / 'prompts.jsonl'}}}"]
    size = "iterations={max: 8, num_prompts_per_iteration: 64}"
    return recipe_file.parse(RECIPE, overrides=[*run, size, *overrides])


def decisions(folder: Path) -> list[str]:
    return [decision.decision for decision in history.read_history(Store(folder / "run", write=False))[1]]


class OwnJudge:
    """A judge of the test's own: a score for each draw from the response and the draw's seed."""

    by = frozenset({"policy"})
    scale = None

    def __init__(self, score, *, num_draws=1):
        self._score, self._num_draws = score, num_draws

    def max_requests(self, work, lengths):
        return []

    def judge(self, prompts, responses, *, models, iteration):
        return [
            Judgment(
                f"{r.id}/own/{d}", r.prompt_id, r.id, "own", d,
                self._score(r, seed_of(0, iteration, "own", f"{r.id}/{d}")), None, "",
            )
            for r in responses
            for d in range(self._num_draws)
        ]  # fmt: skip


def run_with(asked: Recipe, judge):
    """A run with a judge that is not the recipe's."""
    folder = Path(asked.output_dir)
    with Store(folder, name=asked.name) as store:
        store.write_text("recipe.yaml", recipe_file.dump(asked))
        tools = local.prepare(asked, store)
        return loop.run(local.parts_of(asked, store, tools, judge=judge), store)


def test_a_run_rises_to_its_optimum_and_stops_at_the_plateau(tmp_path):
    result = local.run(recipe(tmp_path, NO_LETTERS))
    found = decisions(tmp_path)
    assert found[:2] == ["CONTINUE", "CONTINUE"] and found[-1] == "PLATEAU" and len(found) < 8
    assert set(found[:-1]) <= {"CONTINUE", "INCONCLUSIVE"}
    assert result.decision.stopped_by == "PLATEAU" and result.decision.exit_code == 0
    best = result.decision.best_iteration
    assert best >= 2 and (tmp_path / "run" / "best").resolve().parent.name == f"iteration-{best:02d}"
    status = local.status_of(tmp_path / "run")
    assert (status["state"], status["decision"], status["stopped_by"]) == ("finished", "PLATEAU", "PLATEAU")


def test_a_judge_that_pays_for_length_is_found_to_be_exploited(tmp_path):
    asked = recipe(tmp_path, FIRST_LETTER, "sampling.max_tokens=24", "monitor.length_adjusted=false")
    decision = run_with(asked, OwnJudge(lambda response, _: float(len(response.token_ids))))
    assert decision.stopped_by == "OVEROPT"
    bounds = decision.bounds
    assert bounds["self_gain_vs_previous"]["stop"][0] > 0.05 > bounds["gain_vs_previous"]["stop"][1]


def test_a_judge_of_noise_starves_the_run_before_it_trains(tmp_path):
    noise = OwnJudge(lambda _, seed: float(np.random.default_rng(seed).normal()), num_draws=3)
    decision = run_with(recipe(tmp_path, FIRST_LETTER), noise)
    assert (decision.iteration, decision.decision, decision.stopped_by) == (1, "STARVED", "STARVED")
    assert not (tmp_path / "run" / "iteration-01" / "checkpoint").exists()
    assert (tmp_path / "run" / "best").resolve() == given(tmp_path)


def given(tmp_path: Path) -> Path:
    """Where M_0 lies."""
    with Store(tmp_path / "other", name="ceiling") as store:
        return local.prepare(recipe(tmp_path, FIRST_LETTER), store).models["initial"].path


def test_a_sabotaged_learning_rate_is_harm_and_the_best_is_kept(tmp_path):
    asked = recipe(tmp_path, RARE_AND_COMMON)
    sabotaged = recipe_file.patched(asked, {"training.learning_rate": 0.3})
    with Store(Path(asked.output_dir), name=asked.name) as store:
        store.write_text("recipe.yaml", recipe_file.dump(asked))
        tools = local.prepare(asked, store)
        parts = local.parts_of(asked, store, tools)
        by_turns = replace(parts, compose=lambda t, made: compose(sabotaged if t == 2 else asked, t, made, tools))
        decision = loop.run(by_turns, store)
    assert (decision.iteration, decision.stopped_by, decision.best_iteration) == (2, "HARM", 1)
    assert (tmp_path / "run" / "best").resolve().parent.name == "iteration-01"
