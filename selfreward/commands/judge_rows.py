"""Judges rows of prompts and responses with a recipe's judge, and measures the judge's quality on them.

Rows with the same prompt are judged as responses to that prompt, so that the reliability r can be measured. Results are
stored shard by shard in a work folder: the same call resumes after a kill, and pays for no request twice.
"""

import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from selfreward import recipe_changes
from selfreward.commands.judge_input import InputRows
from selfreward.commands.judge_result import JudgeResult, rows_of
from selfreward.dtypes import engine_dtype, with_dtype
from selfreward.judging import judge_problems, members
from selfreward.judging.recipe_problems import models_of
from selfreward.launch.inputs import identity_of, principles_of
from selfreward.problems import warnings_of
from selfreward.recipe import Recipe, RewardModelSection
from selfreward.records import Evaluation, Judgment, Prompt, Response
from selfreward.roles import Roles
from selfreward.statistics.judge_metrics import measure_judge
from selfreward.store import Store
from selfreward.tables import JUDGMENTS
from selfreward.tools import Inference, inference_of


@contextmanager
def judged_rows(recipe: Recipe, rows: InputRows, *, place: Path, name: str) -> Iterator[JudgeResult]:
    """Judge the rows. Hidden folders in `place`, named after `name`, store replies of endpoints, for good, and
    judgments, until the block ends without an error. Raises a SelfRewardError.
    """
    chosen, recipe = engine_dtype(recipe.engine), with_dtype(recipe)
    # Replies are stored permanently: after a change of draws or budget, only new requests are paid for.
    inference = inference_of(recipe, cache_folder=place / f".{name}.replies")
    work = place / f".{name}.{_fingerprint(recipe, inference, rows)[:12]}"
    with Store(work, name=name) as store:
        warnings = (*store.warnings, *warnings_of(judge_problems(recipe.judging, list(rows.prompts.values()))))
        store.meter = inference.usage
        try:
            lengths = _judge(recipe, rows, store, inference)
        finally:
            inference.engine.close()
        evaluation = _measured(store, lengths, inference.judge(recipe).scale, recipe.seed)
        own = [judgment.unscored for judgment in store.read(1, JUDGMENTS) if not judgment.part]
        yield JudgeResult(
            rows=tuple(rows_of(rows, store.read(1, JUDGMENTS))),
            num_responses=len(rows.texts),
            num_judgments=len(own),
            unscored=dict(Counter(reason for reason in own if reason is not None).most_common()),
            evaluation=evaluation,
            warnings=(*warnings, *inference.notes()),
            cost=inference.usage().get("cost"),
            dtype=f"{chosen.name} ({chosen.reason})" if _uses_engine(recipe) else None,
        )
    _remove(work)


def _uses_engine(recipe: Recipe) -> bool:
    """Return whether a model of the engine judges: no endpoint, and no reward model, which has a dtype of its own."""
    sections = [section for section in members(recipe.judging) if not isinstance(section, RewardModelSection)]
    return any(not models_of(section) <= recipe.endpoints.keys() for section in sections)


def _remove(work: Path) -> None:
    """Remove a work folder; renamed first, as after a kill in between the half of it would be no run folder."""
    removed = work.with_name(f"{work.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(OSError):
        work.rename(removed)
        shutil.rmtree(removed)


def _judge(recipe: Recipe, inputs: InputRows, store: Store, inference: Inference) -> dict[str, int]:
    """Judge all shards; return the length of each response in tokens, by id."""
    models, engine, judge = Roles.at_start(inference.models), inference.engine, inference.judge(recipe)
    by_prompt: defaultdict[str, list[str]] = defaultdict(list)
    for response_id, (prompt_id, _) in inputs.texts.items():
        by_prompt[prompt_id].append(response_id)
    prompts = list(inputs.prompts.values())
    size = recipe.iterations.shard_prompts
    blocks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    lengths: dict[str, int] = {}

    def responses(block: Sequence[Prompt]) -> list[Response]:
        made = []
        for prompt in block:
            prompt_token_ids = engine.encode(prompt.messages)
            for response_id in by_prompt[prompt.id]:
                text = inputs.texts[response_id][1]
                token_ids = engine.encode_text(text)
                lengths[response_id] = len(token_ids)
                made.append(
                    Response(response_id, prompt.id, prompt_token_ids, token_ids, None, text, "stop", 0, "file")
                )
        return made

    def judged(shard: int) -> list[Judgment]:
        return judge.judge(blocks[shard], responses(blocks[shard]), models=models, iteration=1)

    store.stage(1, JUDGMENTS, len(blocks), judged)
    for response_id, (_, text) in inputs.texts.items():
        if response_id not in lengths:  # judged before a kill
            lengths[response_id] = len(engine.encode_text(text))
    return lengths


def _measured(store: Store, lengths: Mapping[str, int], scale: tuple[float, float] | None, seed: int) -> Evaluation:
    metrics, not_measured = measure_judge(store.read(1, JUDGMENTS), response_lengths=lengths, scale=scale, seed=seed)
    return Evaluation(1, metrics, not_measured)


def _fingerprint(recipe: Recipe, inference: Inference, rows: InputRows) -> str:
    """Return a hash of everything that judgments depend on, without the keys that may change on resume."""
    keys = recipe_changes.fixed_keys(recipe)
    files = (identity_of(recipe.local_models, inference.models), sorted(principles_of(recipe).values()))
    return hashlib.sha256(f"{keys!r}\x1f{files!r}\x1f{rows!r}".encode("utf-8", "replace")).hexdigest()
