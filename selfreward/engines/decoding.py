"""Sampling and scoring with a transformers model: batches by length, a key-value cache, one random stream per sample.

Each sample has its own stream of uniform numbers, derived from its seed alone, and maps one number to one token by the
inverse of the cumulative distribution. So a sample does not depend on the rest of the batch, except through the
rounding of logits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch

from selfreward.requests import GenerationRequest, ScoreRequest

T = TypeVar("T")

# Maximum number of logits (floats) of a scoring batch: 512 MiB.
MAX_LOGITS = 2**27
HasEnded = Callable[[GenerationRequest, Sequence[int]], bool]
"""Whether the newest of these tokens ends a sample of the request."""

# Top-p sorts this many of the most probable tokens first, and the complete vocabulary only if they are not enough.
NUCLEUS_TOKENS = 1024


@dataclass(frozen=True)
class Row:
    """One sample of one request."""

    request_index: int
    draw: int
    request: GenerationRequest


@dataclass
class Draw:
    """The sampled tokens of a row; `choice_logprobs` are those at the first position."""

    token_ids: list[int]
    token_logprobs: list[float]
    choice_logprobs: tuple[float, ...] = ()
    has_ended: bool = False


def generation_rows(requests: Sequence[GenerationRequest]) -> list[Row]:
    """Return one row per sample, and a single row for a greedy request, whose samples are all the same."""
    return [
        Row(index, draw, request)
        for index, request in enumerate(requests)
        for draw in range(1 if request.temperature == 0 else request.n)
    ]


def requests_of_rows(rows: Sequence[Row]) -> list[tuple[int, GenerationRequest]]:
    """Return (index of the request, request) for rows of a batch: a request has the draws that are in the batch."""
    found = []
    for index, group in groupby(rows, key=lambda row: row.request_index):
        first, *others = group
        request = first.request
        if request.temperature > 0:
            request = replace(request, seed=request.seed + first.draw, n=1 + len(others))
        found.append((index, request))
    return found


def batches(
    items: Sequence[T], *, size: Callable[[T], tuple[int, ...]], fits: Callable[[int, Sequence[int]], bool]
) -> list[list[T]]:
    """Split items, sorted by `size`, into batches; `fits(num_items, largest sizes)` tests whether a batch is allowed.

    The same items give the same batches. A batch contains at least one item.
    """
    cut: list[list[T]] = []
    largest: list[int] = []
    for item in sorted(items, key=size):
        grown = [max(pair) for pair in zip(largest, size(item), strict=True)] if largest else list(size(item))
        if cut and largest and fits(len(cut[-1]) + 1, grown):
            cut[-1].append(item)
            largest = grown
        else:
            cut.append([item])
            largest = list(size(item))
    return cut


def generation_batches(rows: Sequence[Row], *, batch_tokens: int, max_rows: int) -> list[list[Row]]:
    """Return batches of at most `batch_tokens` padded tokens, prompt plus max_tokens."""
    return batches(
        rows,
        size=lambda row: (len(row.request.prompt_token_ids), row.request.max_tokens),
        fits=lambda count, largest: count <= max_rows and count * sum(largest) <= batch_tokens,
    )


def score_batches(
    requests: Sequence[tuple[int, ScoreRequest]], *, batch_tokens: int, max_rows: int, vocab_size: int
) -> list[list[tuple[int, ScoreRequest]]]:
    """Return batches of at most `batch_tokens` padded tokens and MAX_LOGITS logits."""
    return batches(
        requests,
        size=lambda item: (len(item[1].prompt_token_ids) + len(item[1].token_ids), len(item[1].token_ids)),
        fits=lambda count, largest: (
            count <= max_rows and count * largest[0] <= batch_tokens and count * largest[1] * vocab_size <= MAX_LOGITS
        ),
    )


@torch.inference_mode()
def draw_batch(model: Any, rows: Sequence[Row], *, has_ended: HasEnded, seeded: bool) -> list[Draw]:
    """Sample all rows to their end. Return one `Draw` for each, in order."""
    streams = _streams(rows, seeded=seeded)  # [rows, max_tokens]
    draws = [Draw([], []) for _ in rows]
    live = list(range(len(rows)))  # The row that each line of the tensors below belongs to.
    logits, cache, mask = _prefill(model, rows)
    next_position = mask.sum(dim=1)
    seen = _seen(rows, logits)
    for step in range(streams.shape[1]):
        logprobs = torch.log_softmax(logits.float(), dim=-1)  # Raw: before penalties and temperature.
        token_ids = _sample_token_ids(
            logits.float(),
            [rows[row] for row in live],
            torch.from_numpy(streams[live, step]),
            seen=None if seen is None else seen[live],
        )
        if seen is not None:
            seen[live, token_ids] = True
        if step == 0:
            _record_choice_logprobs(draws, rows, logprobs)
        finished = _record_tokens(draws, rows, live, token_ids, logprobs, has_ended)
        if all(finished):
            break
        keep = [line for line, done in enumerate(finished) if not done]
        if 2 * len(keep) <= len(live):
            index = torch.tensor(keep, device=mask.device)
            cache.batch_select_indices(index)
            mask, next_position, token_ids = mask[index], next_position[index], token_ids[index]
            live = [live[line] for line in keep]
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        output = model(
            input_ids=token_ids[:, None],
            attention_mask=mask,
            position_ids=next_position[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        logits, next_position = output.logits[:, -1], next_position + 1
    return draws


def _streams(rows: Sequence[Row], *, seeded: bool) -> np.ndarray:
    """Return uniform numbers in [0, 1), [rows, max_tokens]; PCG64, seeded with all bits of the sample's seed."""
    longest = max(row.request.max_tokens for row in rows)
    generators = [np.random.default_rng(row.request.seed + row.draw if seeded else None) for row in rows]
    return np.stack([generator.random(longest) for generator in generators])


def _prefill(model: Any, rows: Sequence[Row]) -> tuple[torch.Tensor, Any, torch.Tensor]:
    """Return logits after each prompt, cache and mask, one line per row; samples of a request share its prefill."""
    distinct = list(dict.fromkeys(row.request_index for row in rows))
    prompts = {row.request_index: row.request.prompt_token_ids for row in rows}
    input_ids, mask = _left_padded([prompts[index] for index in distinct], device=model.device)
    output = model(
        input_ids=input_ids, attention_mask=mask, position_ids=_positions(mask), use_cache=True, logits_to_keep=1
    )
    logits, cache = output.logits[:, -1], output.past_key_values
    if len(distinct) < len(rows):
        line_of = {request: line for line, request in enumerate(distinct)}
        index = torch.tensor([line_of[row.request_index] for row in rows], device=mask.device)
        cache.batch_select_indices(index)
        logits, mask = logits[index], mask[index]
    return logits, cache, mask


def _left_padded(sequences: Sequence[Sequence[int]], *, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, sequences))
    input_ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    for line, sequence in enumerate(sequences):
        input_ids[line, width - len(sequence) :] = torch.tensor(sequence)
        mask[line, width - len(sequence) :] = 1
    return input_ids.to(device), mask.to(device)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _record_choice_logprobs(draws: Sequence[Draw], rows: Sequence[Row], logprobs: torch.Tensor) -> None:
    for draw, row, line in zip(draws, rows, logprobs, strict=True):
        if row.request.choice_token_ids:
            draw.choice_logprobs = tuple(line[list(row.request.choice_token_ids)].tolist())


def _record_tokens(
    draws: Sequence[Draw],
    rows: Sequence[Row],
    live: Sequence[int],
    token_ids: torch.Tensor,
    logprobs: torch.Tensor,
    has_ended: HasEnded,
) -> list[bool]:
    """Append the tokens of unfinished rows, and return for each line whether its row has ended."""
    sampled_logprobs = logprobs.gather(1, token_ids[:, None])[:, 0].tolist()
    finished = []
    for row, token_id, logprob in zip(live, token_ids.tolist(), sampled_logprobs, strict=True):
        draw, request = draws[row], rows[row].request
        if not draw.has_ended:
            draw.token_ids.append(token_id)
            draw.token_logprobs.append(logprob)
            draw.has_ended = len(draw.token_ids) == request.max_tokens or has_ended(request, draw.token_ids)
        finished.append(draw.has_ended)
    return finished


def _sample_token_ids(
    logits: torch.Tensor, rows: Sequence[Row], uniform: torch.Tensor, *, seen: torch.Tensor | None = None
) -> torch.Tensor:
    """Return one token id per line; logits [lines, vocabulary], uniform [lines] in [0, 1).

    `seen` [lines, vocabulary] marks the tokens of prompt and sample, for the repetition penalty.
    """
    logits = logits if seen is None else _penalised(logits, rows, seen)
    picked = logits.argmax(dim=-1)
    sampled = [line for line, row in enumerate(rows) if row.request.temperature > 0]
    if not sampled:
        return picked
    temperature = torch.tensor([rows[line].request.temperature for line in sampled], device=logits.device)
    top_p = torch.tensor([rows[line].request.top_p for line in sampled], dtype=torch.float64, device=logits.device)
    probabilities = torch.softmax(logits[sampled] / temperature[:, None], dim=-1)
    probabilities = _restricted(probabilities, [rows[line].request for line in sampled])
    uniform = uniform.to(logits.device)[sampled]
    ids = torch.empty(len(sampled), dtype=torch.long, device=logits.device)

    num_nucleus = min(NUCLEUS_TOKENS, probabilities.shape[1])
    values, order = probabilities.topk(num_nucleus, dim=-1)
    # Decided per line, independently of the rest of the batch.
    needs_all = values.sum(dim=-1, dtype=torch.float64) <= top_p + 1e-6
    narrow = ~needs_all
    if narrow.any():
        ids[narrow] = _inverse(values[narrow], order[narrow], top_p[narrow], uniform[narrow])
    if needs_all.any():
        values, order = probabilities[needs_all].sort(dim=-1, descending=True, stable=True)
        ids[needs_all] = _inverse(values, order, top_p[needs_all], uniform[needs_all])
    picked[sampled] = ids
    return picked


def _seen(rows: Sequence[Row], logits: torch.Tensor) -> torch.Tensor | None:
    """Return the marks of each row's prompt tokens, [rows, vocabulary]; None when no row has a repetition penalty."""
    if all(row.request.repetition_penalty == 1 for row in rows):
        return None
    seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    for line, row in enumerate(rows):
        seen[line, list(row.request.prompt_token_ids)] = True
    return seen


def _penalised(logits: torch.Tensor, rows: Sequence[Row], seen: torch.Tensor) -> torch.Tensor:
    """Divide the positive logits of seen tokens by the penalty, and multiply the negative ones (1909.05858)."""
    penalty = torch.tensor([row.request.repetition_penalty for row in rows], device=logits.device)[:, None]
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _restricted(probabilities: torch.Tensor, requests: Sequence[GenerationRequest]) -> torch.Tensor:
    """Return the probabilities, [lines, vocabulary], of the tokens that min-p and then top-k leave; unchanged without.

    Like vLLM, top-k keeps all tokens that are as probable as the k-th.
    """
    vocabulary, device = probabilities.shape[1], probabilities.device
    top_k = [request.top_k if 0 < request.top_k < vocabulary else vocabulary for request in requests]
    min_p = [request.min_p for request in requests]
    if not any(min_p) and min(top_k) == vocabulary:
        return probabilities
    floor = torch.tensor(min_p, device=device)[:, None] * probabilities.amax(dim=-1, keepdim=True)
    kept = probabilities.masked_fill(probabilities < floor, 0.0)
    if min(top_k) < vocabulary:
        largest = max(k for k in top_k if k < vocabulary)
        rank = torch.tensor([min(k, largest) - 1 for k in top_k], device=device)[:, None]
        least = kept.topk(largest, dim=-1).values.gather(1, rank)
        least = torch.where(torch.tensor(top_k, device=device)[:, None] < vocabulary, least, 0.0)
        kept = kept.masked_fill(kept < least, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _inverse(values: torch.Tensor, order: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return the token ids at quantile `uniform` over the smallest set of tokens whose probability reaches `top_p`.

    `values` are probabilities in descending order, [lines, tokens]; `order` are their token ids.
    """
    cumulative = values.double().cumsum(dim=-1)
    # A token is in the set when the tokens before it do not reach top_p; the first token always is.
    num_kept = (cumulative - values < top_p[:, None]).sum(dim=-1).clamp(min=1)
    mass = cumulative.gather(1, num_kept[:, None] - 1)
    rank = (cumulative <= uniform[:, None] * mass).sum(dim=-1)
    rank = torch.minimum(rank, num_kept - 1)
    return order.gather(1, rank[:, None])[:, 0]


@torch.inference_mode()
def score_batch(model: Any, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
    """Return the log-probabilities of the requests' token ids; each request has at least one."""
    # With left padding, the positions that predict a row's m tokens are the last m.
    num_scored = max(len(request.token_ids) for request in requests)
    input_ids, mask = _left_padded(
        [(*request.prompt_token_ids, *request.token_ids[:-1]) for request in requests], device=model.device
    )
    output = model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=_positions(mask),
        use_cache=False,
        logits_to_keep=min(num_scored, input_ids.shape[1]),
    )
    return list(_scores(output.logits, requests))


def _scores(logits: torch.Tensor, requests: Sequence[ScoreRequest]) -> Iterator[tuple[float, ...]]:
    for line, request in zip(logits, requests, strict=True):
        targets = torch.tensor(request.token_ids, device=logits.device)
        logprobs = torch.log_softmax(line[-len(targets) :].float(), dim=-1)
        yield tuple(logprobs.gather(1, targets[:, None])[:, 0].tolist())
