"""Reference log-probabilities from the engine: the responses that may use them, their sums, and the measured gap."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfreward.errors import StoreError
from selfreward.records import Judgment, Response
from selfreward.store.tables import to_table, write_table
from selfreward.updates.sampled import MAX_CHECKED_PAIRS, SampledLogps, gap, read, rows_to_check


def response(name: str, *token_logprobs: float, **changes: Any) -> Response:
    """Response i of prompt q has the tokens 10, 11, ... after the prompt 1, 2."""
    one = Response(
        id=name, prompt_id="q", prompt_token_ids=(1, 2), token_ids=tuple(range(10, 10 + len(token_logprobs))),
        token_logprobs=token_logprobs, text="", finish_reason="stop", seed=0, checkpoint_id="ref",
    )  # fmt: skip
    return replace(one, **changes)


def written(path: Path, *samples: Any) -> Path:
    write_table(to_table(type(samples[0]), samples), path)
    return path


def pairs_of(*both: tuple[Response, Response]) -> pa.Table:
    rows = [
        {
            "id": f"p{i}", "prompt_ids": list(chosen.prompt_token_ids), "chosen_ids": list(chosen.token_ids),
            "rejected_ids": list(rejected.token_ids), "chosen_id": chosen.id, "rejected_id": rejected.id,
        }
        for i, (chosen, rejected) in enumerate(both)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


GOOD = response("good", -1.0, -0.25)


def test_sums_of_the_samples_are_in_the_order_of_the_pairs(tmp_path: Path) -> None:
    long = response("long", *[-100.1] * 10)
    one, two, three = response("1", -0.5), response("2", -2.0, -0.125), response("3", -4.0, -8.0, -16.0)
    # The file has another order, a sample that no pair uses, and one that two pairs use.
    path = written(tmp_path / "responses.parquet", three, long, response("unused", -1.0), one, two)
    sampled = read([path], pairs_of((two, one), (one, three), (long, two)), reference_id="ref")
    assert sampled.chosen == [-2.125, -0.5, pytest.approx(-1001.0, abs=1e-9)]  # float32 is off by 1e-5
    assert sampled.rejected == [-0.5, -28.0, -2.125]
    assert sampled.num_sampled == 6
    assert not sampled.num_by_reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"checkpoint_id": "another"}, "other_checkpoint"),
        ({"checkpoint_id": "another", "token_logprobs": None}, "other_checkpoint"),
        ({"token_logprobs": None}, "not_sampled"),
        ({"id": "unknown"}, "not_sampled"),
        ({"token_ids": (10, 99)}, "different_tokens"),
        ({"token_ids": (10, 11, 12)}, "different_tokens"),
        ({"token_ids": (10,)}, "different_tokens"),
        ({"token_logprobs": (-1.0,)}, "different_tokens"),
        (
            {"prompt_token_ids": (1, 3)},
            "different_tokens",
        ),  # as for a refined response: the pair has the original prompt
        ({"prompt_token_ids": (0, 1, 2)}, "different_tokens"),
        ({"token_logprobs": (-1.0, -math.inf)}, "not_finite"),
        ({"token_logprobs": (math.nan, -1.0)}, "not_finite"),
        ({"token_logprobs": (None, -1.0)}, "not_finite"),
    ],
)
def test_the_trainer_computes_what_the_reference_did_not_sample(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    other = response("other", -1.0, -2.0)
    path = written(tmp_path / "responses.parquet", GOOD, replace(other, **changes))
    sampled = read([path], pairs_of((GOOD, other), (other, GOOD)), reference_id="ref")
    # This is decided per response: the other response of the pair keeps the engine's number.
    assert (sampled.chosen, sampled.rejected) == ([-1.25, None], [None, -1.25])
    assert sampled.num_by_reason == {reason: 2}
    assert sampled.num_sampled == 2


def test_reasons_are_counted_separately(tmp_path: Path) -> None:
    other_checkpoint, silent = response("f", -1.0, checkpoint_id="x"), response("s", -1.0, token_logprobs=None)
    path = written(tmp_path / "responses.parquet", GOOD, other_checkpoint, silent)
    pairs = pairs_of((GOOD, other_checkpoint), (silent, other_checkpoint), (silent, GOOD), (other_checkpoint, silent))
    sampled = read([path], pairs, reference_id="ref")
    assert sampled.num_by_reason == {"other_checkpoint": 3, "not_sampled": 3}
    assert sampled.num_sampled + sum(sampled.num_by_reason.values()) == 2 * pairs.num_rows


def test_judgments_are_samples_too(tmp_path: Path) -> None:
    judgment = Judgment(
        id="j", prompt_id="q", response_id="r", judge="additive", draw=0, score=1.0, unscored=None, text="",
        prompt_token_ids=(1, 2), token_ids=(7,), token_logprobs=(-3.0,), checkpoint_id="ref",
    )  # fmt: skip
    files = [written(tmp_path / "responses.parquet", GOOD), written(tmp_path / "judgments.parquet", judgment)]
    trained = response("j", -3.0, token_ids=(7,))
    assert read(files, pairs_of((GOOD, trained)), reference_id="ref").rejected == [-3.0]
    assert read(files[:1], pairs_of((GOOD, trained)), reference_id="ref").rejected == [None]
    assert read([], pairs_of((GOOD, trained)), reference_id="ref").num_by_reason == {"not_sampled": 2}


def test_one_id_is_one_sample(tmp_path: Path) -> None:
    first = written(tmp_path / "a.parquet", GOOD, response("unused", -1.0))
    again = written(
        tmp_path / "b.parquet", GOOD, response("unused", -2.0)
    )  # no pair uses it, so the conflict does not matter
    pairs = pairs_of((GOOD, GOOD))
    assert read([first, again], pairs, reference_id="ref").chosen == [-1.25]
    for changes in (
        {"token_logprobs": (-1.0, -0.5)},
        {"token_logprobs": None},
        {"token_ids": (10, 12)},
        {"prompt_token_ids": (1,)},
        {"checkpoint_id": "another"},
    ):
        other = written(tmp_path / "c.parquet", replace(GOOD, **changes))
        with pytest.raises(StoreError, match=r"c\.parquet: sample good differs from another sample"):
            read([first, other], pairs, reference_id="ref")


def test_files_that_contain_no_samples(tmp_path: Path) -> None:
    pairs = pairs_of((GOOD, GOOD))
    with pytest.raises(StoreError, match=r"missing\.parquet"):
        read([tmp_path / "missing.parquet"], pairs, reference_id="ref")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(StoreError, match=r"torn\.parquet"):
        read([tmp_path / "torn.parquet"], pairs, reference_id="ref")
    for missing in ("id", "token_logprobs"):
        pq.write_table(to_table(Response, [GOOD]).drop_columns([missing]), tmp_path / "other.parquet")
        with pytest.raises(StoreError, match=rf"other\.parquet: .*\b{missing}\b"):
            read([tmp_path / "other.parquet"], pairs, reference_id="ref")


def test_gap_is_the_error_of_the_margin() -> None:
    sampled = SampledLogps(chosen=[-10.0, -20.0, 0.0], rejected=[-30.0, -40.0, 0.0], num_by_reason={})
    # Engine minus trainer: +0.3 and -0.1 in the first pair, -0.2 and +0.6 in the second; errors 0.4 and -0.8 nats.
    metrics = gap(sampled, rows=[0, 1], trainer=([-10.3, -19.8], [-29.9, -40.6]), beta=0.5)
    assert metrics == {
        "reference_gap_margin": pytest.approx(0.5 * math.sqrt((0.4**2 + 0.8**2) / 2)),
        "reference_gap_nats": pytest.approx((0.3 + 0.1 + 0.2 + 0.6) / 4),
        "reference_gap_bias_nats": pytest.approx((0.3 - 0.1 - 0.2 + 0.6) / 4),
        "num_reference_gap_pairs": 2,
    }


def test_a_gap_common_to_both_responses_cancels_only_in_the_margin() -> None:
    sampled = SampledLogps(chosen=[-1.0, -2.0], rejected=[-3.0, -4.0], num_by_reason={})
    metrics = gap(sampled, rows=[1, 0], trainer=([-2.5, -1.5], [-4.5, -3.5]), beta=0.1)
    assert metrics["reference_gap_margin"] == pytest.approx(0, abs=1e-12)
    assert metrics["reference_gap_nats"] == metrics["reference_gap_bias_nats"] == pytest.approx(0.5)


def test_nothing_cancels_in_a_pair_with_one_engine_sum() -> None:
    sampled = SampledLogps(chosen=[-1.0, None], rejected=[None, -4.0], num_by_reason={})
    metrics = gap(sampled, rows=[0, 1], trainer=([-1.5, -7.0], [-9.0, -4.5]), beta=0.1)
    assert metrics["reference_gap_margin"] == pytest.approx(0.05)
    assert metrics["reference_gap_nats"] == metrics["reference_gap_bias_nats"] == pytest.approx(0.5)


def test_one_broken_response_among_many_is_visible_in_the_gap() -> None:
    logps = [-50.0] * MAX_CHECKED_PAIRS
    sampled = SampledLogps(chosen=[-10.0, *logps[1:]], rejected=list(logps), num_by_reason={})
    metrics = gap(sampled, rows=range(MAX_CHECKED_PAIRS), trainer=(logps, logps), beta=0.1)
    assert metrics["reference_gap_margin"] == pytest.approx(4 / math.sqrt(32))


@pytest.mark.parametrize("rows", [[], [1]])
def test_no_gap_without_an_engine_sum(rows: list[int]) -> None:
    with pytest.raises(ValueError, match="the engine has no number"):
        gap(
            SampledLogps([-1.0, None], [-1.0, None], {}),
            rows=rows,
            trainer=([-1.0] * len(rows), [-1.0] * len(rows)),
            beta=0.1,
        )


def test_checked_pairs_are_a_seeded_sample_of_the_pairs_with_an_engine_sum() -> None:
    chosen = [None if i % 2 else -1.0 for i in range(200)]
    rejected = [None if i % 3 else -1.0 for i in range(200)]
    sampled = SampledLogps(chosen, rejected, {})
    drawn = [rows_to_check(sampled, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for rows in drawn:
        assert len(set(rows)) == MAX_CHECKED_PAIRS
        assert rows == sorted(rows)
        assert all(chosen[row] is not None or rejected[row] is not None for row in rows)
        assert any(chosen[row] is None for row in rows)  # a sum for either response is enough
        assert any(rejected[row] is None for row in rows)


def test_few_pairs_are_all_checked() -> None:
    assert rows_to_check(SampledLogps([None, -1.0, None], [None, None, -2.0], {}), seed=0) == [1, 2]
    assert rows_to_check(SampledLogps([None], [None], {}), seed=0) == []
