"""Shared code of tests of the evaluation: prompts, a table as engine, an anchor, and consecutive evaluations."""

from dataclasses import dataclass
from typing import Any

from selfreward import evaluation, recipe
from selfreward.errors import EngineError
from selfreward.evaluation.tables import OUTCOMES
from selfreward.judging.verifier import VerifierJudge
from selfreward.recipe import EvaluationSection, SamplingSection
from selfreward.records import Checkpoint, Comparison, Judgment, Message, Prompt
from selfreward.requests import Sample
from selfreward.roles import Roles
from selfreward.running import Runner
from selfreward.workload import Workload

NUM_PROMPTS = 12
MODELS = {t: Checkpoint(f"m{t}", None, t) for t in range(4)}
CHECKS = ({"kind": "regex", "pattern": "good"},)


class Prompts:
    second_validation = test_set = 0
    gold = ()

    def training_prompts(self, iteration):
        return []

    def validation_prompts(self):
        return [Prompt(f"p{i}", (Message("user", f"question {i}"),)) for i in range(NUM_PROMPTS)]

    def verifiable_prompts(self):
        return [Prompt(f"v{i}", (Message("user", f"task {i}"),), CHECKS) for i in range(NUM_PROMPTS)]

    def second_validation_prompts(self):
        return [Prompt(f"r{i}", (Message("user", f"question {i}"),)) for i in range(self.second_validation)]

    def test_prompts(self):
        return [Prompt(f"s{i}", (Message("user", f"question {i}"),)) for i in range(self.test_set)]

    def gold_pairs(self):
        return list(self.gold)


class Engine:
    """M_t writes "good" on the first 4 + 4 t prompts and its name on the others; tokens are characters.

    Under M_t every token has the log-probability -1 - t / 10.
    """

    context_tokens = 60

    def __init__(self, fail_when=lambda engine: False):
        self.loaded = None
        self.swaps = []
        self.num_requests = 0
        self.fail_when = fail_when

    def encode(self, messages):
        return tuple(messages[-1].content.encode())

    def encode_text(self, text):
        return tuple(text.encode())

    def load(self, checkpoint):
        if checkpoint != self.loaded:
            self.swaps.append(checkpoint.id)
        self.loaded = checkpoint
        if self.fail_when(self):
            raise EngineError("engine: pulled the plug")

    def generate(self, requests):
        self.num_requests += len(requests)
        return [[self.sample(request)] for request in requests]

    def sample(self, request):
        t = self.loaded.iteration
        number = int(bytes(request.prompt_token_ids).decode().split()[-1])
        text = f"{number} is good" if number < 4 + 4 * t else f"{number} m{t} m{t} m{t}"
        if request.temperature == 1.0:
            text = "drawn here"
        if len(text) >= request.max_tokens:
            return Sample(tuple(text[: request.max_tokens].encode()), (-1.0,) * request.max_tokens, text, "length")
        return Sample((*text.encode(), 0), (-1.0,) * (len(text) + 1), text, "stop")

    def score(self, requests):
        self.num_requests += len(requests)
        return [(-1.0 - self.loaded.iteration / 10,) * len(r.token_ids) for r in requests]


class Anchor:
    """Prefers good responses; `position_bias` is added for the response that is shown first."""

    by = frozenset({"initial"})

    def __init__(self, engine, position_bias=0.0, unreadable=()):
        self.engine = engine
        self.position_bias = position_bias
        self.unreadable = unreadable
        self.num_comparisons = 0

    def compare(self, prompts, responses, others, *, models, iteration):
        self.engine.load(models["initial"])
        return [
            self.comparison(ours, other, shown)
            for _, ours, other in zip(prompts, responses, others, strict=True)
            for shown in (ours, other)
        ]

    def comparison(self, ours, other, shown):
        self.num_comparisons += 1
        merit = 0.4 * (("good" in ours.text) - ("good" in other.text))
        bias = self.position_bias if shown is ours else -self.position_bias
        preference = None if ours.prompt_id in self.unreadable else min(1.0, max(0.0, 0.5 + merit + bias))
        return Comparison(
            f"{ours.id}~{other.id}/{shown.id}", ours.prompt_id, ours.id, other.id, shown.id, "table",
            preference, "no verdict" if preference is None else None,
        )  # fmt: skip


def roles(iteration, best=MODELS[0], trained=None):
    """The roles of iteration t after its update: the policy is still M_{t-1}."""
    policy = MODELS[max(iteration - 1, 0)]
    weights = {"policy": policy, "trained": trained or MODELS[iteration], "initial": MODELS[0], "best": best}
    weights |= {"previous": policy} if iteration else {}
    return Roles(weights, models={}, at_iteration_start={**weights, "trained": policy}, at_previous_start={})


@dataclass
class EvaluationRunner:
    """The probes of an iteration, run on a store as the loop runs them."""

    evaluator: evaluation.Evaluator
    judge: Any
    section: EvaluationSection

    def evaluate(self, store, iteration, roles):
        judge = self.judge if self.section.self_judge else None
        return self._run(store, iteration, evaluation.held_out(self.evaluator, iteration, self_judge=judge), roles)

    def evaluate_second_validation(self, store, iteration, roles):
        (probe,) = evaluation.second_validation(self.evaluator, iteration)
        return self._run(store, iteration, probe, roles)

    def run_test(self, store, iteration, roles):
        """None when there is nothing to evaluate."""
        return next((self._run(store, iteration, probe, roles) for probe in evaluation.test_set(self.evaluator)), None)

    def evaluate_judge(self, store, iteration, roles, num_responses=2):
        """Measure on the iteration's `prompts`, `responses` and `judgments`."""
        num_prompts = self.section.num_judge_prompts
        work = Workload(self.evaluator.source.training_prompts(iteration), num_responses, 20, iteration)
        probe = evaluation.judge_probe(self.evaluator, judge=self.judge, work=work, num_prompts=num_prompts)
        return self._run(store, iteration, probe, roles)

    def _run(self, store, iteration, probe, roles):
        return Runner(store, self.evaluator.engine).probe(iteration, probe, roles)


def evaluator(engine, anchor=None, *, shard_prompts=100, prompts=None, judge=None, **section):
    asked = EvaluationSection(max_tokens=20, **section)
    decoding = evaluation.Decoding(asked.temperature, SamplingSection().top_p, 20)
    evaluator = evaluation.Evaluator(prompts or Prompts(), engine, anchor or Anchor(engine), decoding, 7, shard_prompts)
    return EvaluationRunner(evaluator, judge or VerifierJudge(recipe.VerifierSection(kind="verifier")), asked)


def evaluate(evaluator, store, iteration, best=MODELS[0]):
    return evaluator.evaluate(store, iteration, roles(iteration, best))


def run(store, *, up_to=2, **options):
    """Evaluations 0..up_to, each with a separate engine, as after a restart."""
    return [evaluate(evaluator(Engine(), **options), store, iteration) for iteration in range(up_to + 1)]


class TableJudge:
    """Scores a text by `likes`, None for unscored; records each call, and fails at `fail_at`."""

    by = frozenset({"policy"})
    scale = (0.0, 5.0)

    def __init__(self, likes, fail_at=None):
        self.likes = likes
        self.fail_at = fail_at
        self.calls = []

    def judge(self, prompts, responses, *, models, iteration):
        self.calls.append(([r.text for r in responses], models["policy"].id))
        if len(self.calls) == self.fail_at:
            raise EngineError("judge: pulled the plug")
        return [judgment(r, self.likes(r.text), part=part) for r in responses for part in ("", "clarity")]


def judgment(response, score, part=""):
    return Judgment(
        f"{response.id}/table/{part}", response.prompt_id, response.id, "table", 0, score,
        "no verdict" if score is None else None, "", part=part,
    )  # fmt: skip


def likes_brevity(text):
    return 5.0 - len(text) / 10


def outcomes_of(store, iteration, table=OUTCOMES):
    return list(store.read(iteration, table))


def by_key(rows):
    return {
        key: [row.outcome for row in rows if (row.by, row.set, row.against) == key]
        for key in dict.fromkeys((row.by, row.set, row.against) for row in rows)
    }
