"""A model behind an OpenAI-compatible chat-completions server, as `parts.Chat`: it judges, and is never trained.

Every reply has a key, made of the address and of the request body for this reply alone. Replies in the cache file are
never requested again; the others are requested in as few requests as possible, and each answer is cached when it
arrives. So a run that was killed, or that stopped because of its budget or the server, pays for no reply twice.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward.chats.endpoint_cache import ReplyCache
from selfreward.chats.endpoint_dialect import SAMPLING_KEYS, Dialect
from selfreward.chats.endpoint_http import Connection, RateLimiter, model_id
from selfreward.chats.endpoint_refusals import (
    ErrorReport,
    Garbled,
    LostAnswer,
    Refused,
    TooLarge,
    may_be_about_the_prompt,
    skipped_reason,
)
from selfreward.chats.endpoint_replies import read_replies, used_tokens
from selfreward.chats.endpoint_serving import Serving
from selfreward.chats.endpoint_wire import (
    TOKENS_PER_BYTE,
    chat_body,
    draw_key,
    max_answer_bytes,
    max_reply_chars,
    prompt_bytes,
    worst_tokens,
)
from selfreward.errors import BudgetError, EngineError
from selfreward.readers import Unscored
from selfreward.recipe import EndpointSection
from selfreward.records import Checkpoint
from selfreward.requests import ChatRequest, Reply

if TYPE_CHECKING:
    import tenacity

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
_COUNTERS = ("num_requests", "num_prompt_tokens", "num_generated_tokens", "num_cached_replies", "num_retries")


class _Stopped(Exception):
    """Another request failed, or the process was stopped; the exception that caused this has the reason."""


@dataclass(frozen=True)
class _Task:
    """Consecutive replies of one request; `keys[i]` is the key of reply `first` + i."""

    request: ChatRequest
    first: int
    keys: tuple[str, ...]


class EndpointChat:
    """A `parts.Chat`. `name` is the model's name in the recipe, under which `cache_file` counts its cost.

    Raises RecipeError when the environment variable of the key is not set.
    """

    is_local = False

    def __init__(self, name: str, section: EndpointSection, *, cache_file: Path) -> None:
        self._name = name
        self._section = section
        self._connection = Connection(name, section)
        self._cache = ReplyCache(cache_file, account=name)
        self._rate_limiter = RateLimiter(section.max_requests_per_minute)
        self._dialect = Dialect()
        self._serving = Serving(has_served=self._cache.holds_served, remember=self._cache.store)
        self._counts = dict.fromkeys((*_COUNTERS, *(("cost",) if section.price else ())), 0.0)
        self._lock = threading.Lock()
        self._ended = threading.Condition()  # notified when a request in flight ends
        self._num_in_flight = 0
        self._first = threading.Lock()
        self._tokens_per_byte: float | None = None  # the server's largest count; None before its first answer

    @property
    def by(self) -> str:
        return self._name

    def model_id(self, models: Mapping[str, Checkpoint]) -> str:
        return model_id(self._section)

    def reply(self, requests: Sequence[ChatRequest], *, models: Mapping[str, Checkpoint]) -> list[list[Reply]]:
        """Raises EngineError when the server fails permanently, BudgetError, StoreError; the same call then resumes."""
        keys = [self._keys(request, where=f"request {i}") for i, request in enumerate(requests)]
        known = self._cache.read(key for draws in keys for key in draws)
        self._count(num_cached_replies=len(known))
        tasks = _tasks(requests, keys, known)
        self._serving.begin()
        known |= self._request_all(tasks)
        with self._explained():
            self._serving.end(num_requests=len(tasks))
        return [[known[key] for key in draws] for draws in keys]

    def usage(self) -> Mapping[str, float]:
        """Return counters since the start. `cost` exists with a price; lost answers count at their maximum cost."""
        with self._lock:
            return dict(self._counts)

    def notes(self) -> tuple[str, ...]:
        """Return what the user should know about the replies, one sentence each; it only grows."""
        return tuple(f"{self._connection.where}: {note}" for note in self._cache.notes)

    def close(self) -> None:
        self._connection.close()
        self._cache.close()

    def _keys(self, request: ChatRequest, *, where: str) -> tuple[str, ...]:
        """Return one key per reply; at temperature 0 all replies are the same, with the same key."""
        if request.n < 1 or request.max_tokens < (0 if request.choices else 1):
            raise EngineError(
                f"{self._connection.where}: {where} has n {request.n} and max_tokens {request.max_tokens}; both "
                "must be at least 1; correct them"
            )
        draws = range(request.n) if request.temperature > 0 else [0] * request.n
        bodies = (chat_body(request, self._section, draw=draw) for draw in draws)
        return tuple(draw_key(self._connection.url, body, request) for body in bodies)

    def _request_all(self, tasks: Sequence[_Task]) -> dict[str, Reply]:
        if not tasks:
            return {}
        from tqdm import tqdm

        replies: dict[str, Reply] = {}
        stop = threading.Event()

        def request_unless_stopped(task: _Task) -> dict[str, Reply]:
            with self._one_task_until_calibrated():
                try:
                    return self._request_task(task, stop)
                except _Stopped:
                    return {}
                except BaseException:
                    stop.set()  # before this or a waiting thread takes the next task
                    raise

        num_draws = sum(len(task.keys) for task in tasks)
        bar = tqdm(total=num_draws, desc=self._name, unit="reply", disable=None, dynamic_ncols=True, leave=False)
        with bar, ThreadPoolExecutor(min(self._section.max_concurrency, len(tasks)), "endpoint") as pool:
            try:
                for future in as_completed([pool.submit(request_unless_stopped, task) for task in tasks]):
                    new = future.result()
                    replies |= new
                    bar.update(len(new))
            except BaseException:
                stop.set()
                # Requests in flight finish and are stored; the others are not sent.
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return replies

    @contextmanager
    def _one_task_until_calibrated(self) -> Iterator[None]:
        """With a budget, run tasks one by one until the first answer shows how many tokens the server counts."""
        with self._first:
            if self._section.budget is not None and self._tokens_per_byte is None:
                yield
                return
        yield

    def _request_task(self, task: _Task, stop: threading.Event) -> dict[str, Reply]:
        """Return all replies of a task; if the server returns too few, request the rest with the next seeds."""
        replies: dict[str, Reply] = {}
        while rest := task.keys[len(replies) :]:
            replies |= self._request(_Task(task.request, task.first + len(replies), rest), stop)
        return replies

    def _request(self, task: _Task, stop: threading.Event) -> dict[str, Reply]:
        """Return at least the first reply of the task. Raises EngineError when all attempts fail, and _Stopped."""
        import tenacity

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(LostAnswer),
            stop=tenacity.stop_after_attempt(self._section.max_attempts),
            wait=_wait_s,
            sleep=tenacity.sleep_using_event(stop),
            before_sleep=lambda _: self._count(num_retries=1),
            reraise=True,
        )
        with self._explained():
            try:
                return attempts(self._attempt, task, stop)
            except Garbled as garbled:
                return self._skip(task, garbled, None)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise an EngineError with the server's words, on one line."""
        where, clean = self._connection.where, self._connection.clean
        try:
            yield
        except LostAnswer as lost:
            raise EngineError(
                f"{where}: no answer after {self._section.max_attempts} attempts, the last time because of: "
                f"{clean(str(lost))}; the server must answer; start it, wait, or lower max_concurrency, then run the "
                "same command again: received replies are stored"
            ) from None
        except Refused as refused:
            raise EngineError(
                f"{where}: the server refused the request: {clean(str(refused))}; {_advice(refused)}, then run the "
                "same command again: received replies are stored"
            ) from None

    def _attempt(self, task: _Task, stop: threading.Event) -> dict[str, Reply]:
        """Send the request; if the server refuses this dialect, try another at once, without counting a failure."""
        while True:
            dialect = self._dialect
            keys = task.keys if dialect.many_draws else task.keys[:1]
            body = dialect.apply(chat_body(task.request, self._section, draw=task.first), n=len(keys))
            try:
                return self._exchange(task.request, body, keys=keys, stop=stop)
            except Refused as refused:
                reason = skipped_reason(refused)
                key = None if reason else dialect.refused_key(refused, body=body)
                if key is not None:
                    self._adapt(dialect, key, refused)
                elif reason is None and not may_be_about_the_prompt(refused):
                    raise
                else:
                    return self._skip(task, refused, reason)

    def _skip(self, task: _Task, cause: Refused | Garbled, reason: Unscored | None) -> dict[str, Reply]:
        """Return the replies of a request that is not served, perhaps because of its text; raise `cause` when there are
        too many of them."""
        skipped = dict.fromkeys(task.keys, Reply(skipped=(reason or Unscored.REFUSED).value))
        self._serving.refused(cause, skipped, is_known=reason is not None)
        return skipped

    def _adapt(self, dialect: Dialect, key: str, refused: Refused) -> None:
        """Leave `key` out from now on, or put it otherwise; never a key that the user wrote."""
        if key in self._section.extra_body and key != "max_tokens":
            raise EngineError(
                f"{self._connection.where}: the server refuses {key}, which extra_body sets: "
                f"{self._connection.clean(str(refused))}; only keys that it supports are allowed; remove it from "
                f"models.{self._name}.extra_body, then run the same command again: received replies are stored"
            )
        with self._lock:
            if self._dialect != dialect:  # another thread has already adapted it
                return
            self._dialect = dialect.without(key)
        if lost := SAMPLING_KEYS.get(key):
            self._cache.note(f"the server does not support {key}, so it is left out of all requests: {lost}")

    def _exchange(
        self, request: ChatRequest, body: Mapping[str, Any], *, keys: Sequence[str], stop: threading.Event
    ) -> dict[str, Reply]:
        if stop.is_set() or stop.wait(self._rate_limiter.wait_s()):
            raise _Stopped
        with self._reserved_cost(body) as (sent, worst):
            if stop.is_set():  # while waiting for the budget
                raise _Stopped
            self._count(num_requests=1)
            replies, used = self._answer(request, body, n=len(keys))
            stored = dict(zip(keys, replies, strict=False))
            self._cache.store(stored, sent=sent, cost=self._cost(used or worst))
            self._update_tokens_per_byte(body, used)
            self._count(
                num_prompt_tokens=used[0] if used else 0,
                num_generated_tokens=used[1] if used else 0,
                cost=self._cost(used or worst),
            )
        self._learn_from(replies)
        return stored

    def _answer(
        self, request: ChatRequest, body: Mapping[str, Any], *, n: int
    ) -> tuple[list[Reply], tuple[int, int] | None]:
        """Return the replies to `body`, and the prompt and generated tokens if the server counted them."""
        try:
            answer = self._connection.post(body, max_bytes=max_answer_bytes(body))
        except TooLarge:
            return [Reply(skipped=Unscored.TOO_LARGE.value)] * n, None
        found = read_replies(answer, request, n=n, max_chars=max_reply_chars(body))
        used = used_tokens(answer)
        if used is None and answer.get("usage"):
            self._cache.note("the server's token counts cannot be used; a reply without them is counted at its maximum")
        return [replace(reply, text=self._connection.without_key(reply.text)) for reply in found], used

    def _learn_from(self, replies: Sequence[Reply]) -> None:
        """Note whether the server serves; these replies are stored, whatever follows."""
        if all(reply.skipped == Unscored.REFUSED for reply in replies):
            refusal = Refused(200, ErrorReport("every choice is without a message, or was filtered"))
            self._serving.refused(refusal, {}, is_known=True)
        else:
            self._serving.served()

    def _update_tokens_per_byte(self, body: Mapping[str, Any], used: tuple[int, int] | None) -> None:
        """Update the tokens per byte; without a count by the server, one byte counts as one token."""
        with self._lock:
            if used:
                self._tokens_per_byte = max(self._tokens_per_byte or TOKENS_PER_BYTE, used[0] / prompt_bytes(body))
            elif self._tokens_per_byte is None:
                self._tokens_per_byte = 1.0

    def _worst_tokens(self, body: Mapping[str, Any]) -> tuple[int, int]:
        with self._lock:
            return worst_tokens(body, tokens_per_byte=self._tokens_per_byte or 1.0)

    def _cost(self, num_tokens: tuple[int, int]) -> float:
        price = self._section.price
        return (num_tokens[0] * price.prompt + num_tokens[1] * price.generated) / 1e6 if price else 0.0

    @contextmanager
    def _reserved_cost(self, body: Mapping[str, Any]) -> Iterator[tuple[str | None, tuple[int, int]]]:
        """Reserve the maximum cost before a request is sent, and release it when it was certainly not charged.

        Yields the id of the reservation (None without a price) and the tokens that it covers.
        """
        if self._section.price is None:
            yield None, self._worst_tokens(body)
            return
        sent, worst = self._reserve(body)
        try:
            yield sent, worst
        except LostAnswer as lost:
            if lost.paid:
                self._count(cost=self._cost(worst))
            else:
                self._cache.release(sent)
            raise
        except Refused as refused:
            if refused.paid:
                self._count(cost=self._cost(worst))
            else:
                self._cache.release(sent)
            raise
        except _Stopped:
            self._cache.release(sent)
            raise
        finally:
            with self._ended:
                self._num_in_flight -= 1
                self._ended.notify_all()

    def _reserve(self, body: Mapping[str, Any]) -> tuple[str, tuple[int, int]]:
        """Reserve the maximum cost, waiting for requests in flight, which may cost less. Raises BudgetError."""
        with self._ended:
            while True:
                worst_tokens = self._worst_tokens(body)  # computed again each time, because answers update the estimate
                worst = self._cost(worst_tokens)
                sent = self._cache.reserve(worst, budget=self._section.budget)
                if sent is not None:
                    self._num_in_flight += 1
                    return sent, worst_tokens
                if not self._num_in_flight:
                    raise BudgetError(
                        f"{self._connection.where}: {self._cache.spent():.6g} is spent, and the next request may cost "
                        f"{worst:.6g}; {self._section.budget:.6g} in total is allowed; raise "
                        f"models.{self._name}.budget and run the same command again: received replies are stored"
                    )
                self._ended.wait()

    def _count(self, **counts: float) -> None:
        with self._lock:
            for name, count in counts.items():
                if name in self._counts:
                    self._counts[name] += count


def _tasks(requests: Sequence[ChatRequest], keys: Sequence[tuple[str, ...]], known: Mapping[str, Reply]) -> list[_Task]:
    """Return tasks for all uncached replies, each once, grouped into consecutive replies of a request."""
    tasks: list[_Task] = []
    planned = set(known)
    for request, draws in zip(requests, keys, strict=True):
        first, new = 0, list[str]()
        for draw, key in enumerate(draws):
            if key in planned:
                tasks += [_Task(request, first, tuple(new))] if new else []
                first, new = draw + 1, []
            else:
                planned.add(key)
                new.append(key)
        tasks += [_Task(request, first, tuple(new))] if new else []
    return tasks


def _wait_s(state: "tenacity.RetryCallState") -> float:
    """Return the wait that the server requests, else an exponential backoff; jitter spreads the threads out."""
    import tenacity

    lost = state.outcome.exception() if state.outcome else None
    if isinstance(lost, LostAnswer) and lost.retry_after_s is not None:
        return lost.retry_after_s + tenacity.wait_random(0, min(_FIRST_WAIT_S, lost.retry_after_s / 4))(state)
    wait_s = tenacity.wait_exponential_jitter(initial=_FIRST_WAIT_S, max=_LONGEST_WAIT_S, jitter=_FIRST_WAIT_S)
    return wait_s(state)


def _advice(refused: Refused) -> str:
    match refused.status:
        case 401 | 403:
            return "it needs a valid key; check the variable that api_key_env names"
        case 404:
            return "it must serve this address and model; check endpoint and model"
        case status if 300 <= status < 400:
            return "redirects are not followed; write the address that the server itself has into endpoint"
    match skipped_reason(refused):
        case Unscored.TOO_LONG:
            return "its context must hold the requests, and it holds none; use a model with a longer context"
        case Unscored.REFUSED:
            return "its filter must let requests pass, and it blocks all; read the prompts, or use another provider"
    if key := next((key for key in SAMPLING_KEYS if key in refused.report.about), None):
        return f"it must accept {key}; set another value, or `extra_body: {{{key}: null}}` to leave it out"
    if "response_format" in refused.report.about or "json_schema" in refused.report.about:
        return "it must support JSON schemas; set `structured: false` in the judge"
    return "it must support the request; check model and extra_body"
