"""The endpoint chat over real HTTP, against a misbehaving server: every reply arrives and is paid for once."""

import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.endpoint_server import (
    TOKENS_PER_CHOICE,
    TOKENS_PER_PROMPT,
    Body,
    EndpointServer,
    Misbehaviour,
    answer_to,
    die,
    drop,
    hang,
    raw_answer,
    status,
    trickle,
    truncate,
)
from pydantic import ValidationError

from selfreward.chats.endpoint import EndpointChat
from selfreward.chats.endpoint_http import RateLimiter
from selfreward.errors import BudgetError, EngineError, RecipeError, StoreError
from selfreward.recipe import EndpointSection
from selfreward.records import Message
from selfreward.requests import ChatRequest, Reply

KEY = "sk-test-0123456789-abcdef"
OPENING = "Score:"
SCORES = ("0", "1", "2", "3", "4", "5")
# One unit of cost per token.
PRICE = {"prompt": 1e6, "generated": 1e6}


@pytest.fixture
def server() -> Iterator[EndpointServer]:
    with EndpointServer() as server:
        yield server


Make = Callable[..., EndpointChat]


@pytest.fixture
def make(server: EndpointServer, tmp_path: Path) -> Iterator[Make]:
    """Return a factory of chats on the server; each is a new session on the same cache file."""
    made: list[EndpointChat] = []

    def new(**settings: Any) -> EndpointChat:
        section = EndpointSection.model_validate(
            {"endpoint": server.url, "model": "judge", "timeout_s": 20.0, "max_attempts": 4, **settings}
        )
        made.append(EndpointChat("grader", section, cache_file=tmp_path / "cache" / "grader.jsonl"))
        return made[-1]

    yield new
    for chat in made:
        chat.close()


def ask(content: str = "hello", **settings: Any) -> ChatRequest:
    return ChatRequest((Message("user", content),), **{"max_tokens": 5, "temperature": 1.0, **settings})


def asks(number: int, **settings: Any) -> list[ChatRequest]:
    return [ask(f"question {i}", seed=1000 * i, **settings) for i in range(number)]


def expected(requests: list[ChatRequest]) -> list[list[str]]:
    """Return the replies of a server without failures."""
    return [
        [f"reply to {request.messages[-1].content} with seed {request.seed + i}" for i in range(request.n)]
        for request in requests
    ]


def texts(replies: list[list[Reply]]) -> list[list[str]]:
    return [[reply.text for reply in draws] for draws in replies]


MISBEHAVIOURS: dict[str, list[Misbehaviour]] = {
    "too_many_requests": [status(429, "slow down", retry_after="0")] * 3,
    "milliseconds": [status(429, "slow down", retry_after_ms="1")] * 3,
    "server_errors": [status(500), status(503), status(408), status(409)],
    "no_json": [raw_answer(b"<html>gateway</html>"), raw_answer(b'{"choices": ['), raw_answer(b"[" * 100_000)],
    "no_choices": [
        raw_answer(b"{}"),
        raw_answer(b'{"error": {"message": "upstream"}}'),
        raw_answer(b'{"error": {"message": "upstream"}, "choices": []}'),
        raw_answer(b"[]"),
    ],
    "broken_off": [
        raw_answer(b'{"choices": [{"message": {"content": "a"}, "finish_reason": "abort"}]}'),
        raw_answer(b'{"choices": [{"error": {"message": "upstream"}}]}'),
    ],
    "dropped": [drop, drop],
    "truncated": [truncate, truncate],
    "gone": [drop, truncate, status(502), raw_answer(b"")],
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_transient_failures_are_retried_and_paid_once(server: EndpointServer, make: Make, name: str) -> None:
    requests = asks(6)
    server.misbehaviours.extend(MISBEHAVIOURS[name])
    chat = make(max_concurrency=3)
    assert texts(chat.reply(requests, models={})) == expected(requests)
    assert server.texts_answered == sorted(text for draws in expected(requests) for text in draws)
    usage = chat.usage()
    assert usage["num_retries"] == len(MISBEHAVIOURS[name])
    assert usage["num_requests"] == len(server.received) == 6 + len(MISBEHAVIOURS[name])


@pytest.mark.parametrize("silence", [hang, trickle])
def test_a_silent_server_times_out(server: EndpointServer, make: Make, silence: Misbehaviour) -> None:
    server.misbehaviours.append(silence)
    started = time.monotonic()
    assert texts(make(timeout_s=0.3).reply([ask()], models={})) == expected([ask()])
    assert time.monotonic() - started < 30  # less than `hang` lasts
    assert len(server.received) >= 2


def test_the_wait_that_a_server_requests_is_respected(server: EndpointServer, make: Make) -> None:
    server.misbehaviours.append(status(429, "slow down", retry_after="1"))
    make().reply([ask()], models={})
    assert server.received_at[1] - server.received_at[0] >= 1


def test_a_server_that_dies_and_comes_back_on_its_port_answers_the_rest(server: EndpointServer, make: Make) -> None:
    requests = asks(12)
    chat = make(max_concurrency=3, max_attempts=8)
    found: list[list[Reply]] = []
    server.misbehaviours.extend([_well, _well, _well, _well, die])
    thread = threading.Thread(target=lambda: found.extend(chat.reply(requests, models={})))
    thread.start()
    assert server.died.wait(30)
    server.start()
    thread.join(60)
    assert texts(found) == expected(requests)
    assert server.texts_answered == sorted(text for draws in expected(requests) for text in draws)


def _well(exchange: Any, body: Body) -> None:
    exchange.send(200, answer_to(body))


def test_an_unreachable_server_is_reported_with_the_cause(server: EndpointServer, make: Make) -> None:
    chat = make(max_attempts=2)
    server.stop()
    with pytest.raises(EngineError, match=r"models\.grader \(http.*after 2 attempts.*ConnectError.*same command") as e:
        chat.reply(asks(2), models={})
    assert e.value.exit_code == 4


@pytest.mark.parametrize("code", [401, 402, 403, 404, 418, 302])
def test_a_refusal_is_final_and_in_the_servers_words(server: EndpointServer, make: Make, code: int) -> None:
    server.misbehaviours.append(status(code, "no such\x1b[31m thing " + "x" * 5000))
    with pytest.raises(EngineError, match=rf"{code}: no such \[31m thing x") as e:
        make(max_concurrency=1).reply(asks(3), models={})
    assert len(str(e.value)) < 1000
    assert len(server.received) == 1


@pytest.mark.parametrize("answer", [status(429, "no money", retry_after="86400"), status(429, "insufficient_quota")])
def test_permanent_failures_are_not_retried(server: EndpointServer, make: Make, answer: Misbehaviour) -> None:
    server.misbehaviours.append(answer)
    with pytest.raises(EngineError, match="429: "):
        make().reply([ask()], models={})
    assert len(server.received) == 1


def test_after_a_failure_requests_in_flight_are_stored_and_others_not_sent(server: EndpointServer, make: Make) -> None:
    requests = asks(120)
    refused = threading.Event()

    def late(exchange: Any, body: Body) -> None:
        server.wait_for(lambda: len(server.received) >= 4)
        assert refused.wait(30)
        exchange.send(200, answer_to(body))

    def refuse(exchange: Any, body: Body) -> None:
        server.wait_for(lambda: len(server.received) >= 4)
        status(401, "who are you")(exchange, body)
        refused.set()

    server.misbehaviours.extend([late, late, refuse, late])
    with pytest.raises(EngineError, match="401: who are you"):
        make(max_concurrency=4).reply(requests, models={})
    num_answered = len(server.answered)
    assert 3 <= num_answered < 80
    assert texts(make().reply(requests, models={})) == expected(requests)
    assert len(set(server.texts_answered)) == len(server.texts_answered) == 120


@pytest.mark.parametrize("waiting", [{"max_requests_per_minute": 4}, {"price": PRICE, "budget": 10_000}])
def test_waiting_requests_stop_at_once_after_a_failure(
    server: EndpointServer, make: Make, waiting: dict[str, Any]
) -> None:
    """Three requests wait: for their time slots in 15 to 45 s, or for the first answer."""
    server.misbehaviours.append(status(401, "who are you"))
    chat = make(max_concurrency=4, **waiting)
    started = time.monotonic()
    with pytest.raises(EngineError, match="401: who are you"):
        chat.reply(asks(6), models={})
    assert time.monotonic() - started < 12
    assert len(server.received) == chat.usage()["num_requests"] == 1


def test_waiting_retries_stop_after_a_failure(server: EndpointServer, make: Make) -> None:
    def refuse(exchange: Any, body: Body) -> None:
        server.wait_for(lambda: len(server.received) == 2)
        status(401, "who are you")(exchange, body)

    server.misbehaviours.extend([status(503, "later", retry_after="100"), refuse])
    started = time.monotonic()
    with pytest.raises(EngineError, match="401: who are you"):
        make(max_concurrency=2).reply(asks(2), models={})
    assert time.monotonic() - started < 60
    assert len(server.received) == 2


@pytest.mark.parametrize(
    ("code", "words", "reason"),
    [
        (400, "This model's maximum context length is 1024 tokens. Please reduce the length of the prompt", "too_long"),
        (400, "max_completion_tokens is too large: the maximum context length is 4096 tokens", "too_long"),
        (413, "Request too large for model", "too_long"),
        (422, "the prompt is too long: 9000 tokens", "too_long"),
        (400, "The response was filtered: content_filter", "refused"),
    ],
)
def test_a_request_that_cannot_be_served_is_skipped_with_a_reason(
    server: EndpointServer, make: Make, code: int, words: str, reason: str
) -> None:
    server.misbehaviours.append(status(code, words))
    requests = asks(3, n=2)
    replies = make(max_concurrency=1).reply(requests, models={})
    assert replies[0] == [Reply(skipped=reason)] * 2
    assert texts(replies[1:]) == expected(requests[1:])
    assert make().reply(requests, models={}) == replies
    assert len(server.received) == 3


@pytest.mark.parametrize(
    "choice", [{"finish_reason": "content_filter"}, {"message": {"content": None, "refusal": "I will not"}}]
)
def test_a_refused_reply_is_skipped_with_a_reason(server: EndpointServer, make: Make, choice: dict[str, Any]) -> None:
    server.answer = lambda body: answer_to(body, **choice)
    assert make().reply([ask()], models={}) == [[Reply(skipped="refused")]]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "reasoning_content": "hmm"}, ""),
        ({"content": "4", "reasoning": "hmm"}, "4"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": "nul \x00 esc \x1b half \ud83d end é 你 😀"}, "nul \x00 esc \x1b half \ufffd end é 你 😀"),
    ],
)
def test_the_text_is_only_the_content_of_the_message(
    server: EndpointServer, make: Make, message: dict[str, Any], text: str
) -> None:
    server.answer = lambda body: answer_to(body, message=message, finish_reason="length")
    for _ in range(2):  # from the server, from the cache
        assert make().reply([ask("half \udc00 of it")], models={}) == [[Reply(text=text, finish_reason="length")]]
    assert len(server.received) == 1
    assert server.received[0]["messages"][0]["content"] == "half \ufffd of it"
    text.encode()


# --- the cache -----------------------------------------------------------------------------------------------------


def test_a_second_run_of_the_same_requests_sends_nothing(server: EndpointServer, make: Make) -> None:
    requests = asks(5, n=2)
    first = make().reply(requests, models={})
    again = make()
    assert again.reply(requests, models={}) == first
    assert len(server.received) == 5
    assert again.usage()["num_cached_replies"] == 10
    assert again.usage()["num_requests"] == 0
    # Every change of the request gives another reply, which is requested.
    others = [ask("question 0", **change) for change in ({"seed": 5}, {"top_p": 0.5}, {"max_tokens": 6})]
    make().reply(others, models={})
    make(model="other").reply(requests[:1], models={})
    assert len(server.received) == 9


CLIENT = """
import sys
from pathlib import Path
from selfreward.chats.endpoint import EndpointChat
from selfreward.requests import ChatRequest
from selfreward.recipe import EndpointSection
from selfreward.records import Message
url, cache = sys.argv[1:]
section = EndpointSection(endpoint=url, model="judge", max_concurrency=1)
requests = [ChatRequest((Message("user", f"question {i}"),), max_tokens=5, temperature=1.0, seed=1000 * i)
            for i in range(12)]
EndpointChat("grader", section, cache_file=Path(cache)).reply(requests, models={})
"""


def test_replies_of_a_killed_process_are_not_requested_again(
    server: EndpointServer, make: Make, tmp_path: Path
) -> None:
    requests = asks(12)
    server.misbehaviours.extend([_well] * 5 + [hang])
    arguments = [sys.executable, "-c", CLIENT, server.url, str(tmp_path / "cache" / "grader.jsonl")]
    with subprocess.Popen(arguments) as client:
        server.wait_for(lambda: len(server.received) == 6)
        client.send_signal(signal.SIGKILL)
    assert client.returncode == -signal.SIGKILL
    assert len(server.answered) == 5
    chat = make()
    assert texts(chat.reply(requests, models={})) == expected(requests)
    assert chat.usage()["num_cached_replies"] == 5
    assert chat.usage()["num_requests"] == 7
    assert server.texts_answered == sorted(text for draws in expected(requests) for text in draws)


def test_a_terminated_process_does_not_wait_for_the_next_attempt(
    server: EndpointServer, make: Make, tmp_path: Path
) -> None:
    """The wait that the server requests is longer than any test may take."""
    server.misbehaviours.extend([_well, status(503, "later", retry_after="500")])
    arguments = [sys.executable, "-c", CLIENT, server.url, str(tmp_path / "cache" / "grader.jsonl")]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE) as client:
        server.wait_for(lambda: len(server.received) == 2)
        client.send_signal(signal.SIGINT)
        _, words = client.communicate(timeout=60)
    assert b"KeyboardInterrupt" in words
    assert len(server.received) == 2
    chat = make()
    chat.reply(asks(12), models={})
    assert chat.usage()["num_cached_replies"] == 1


def test_replies_are_in_the_order_of_requests(server: EndpointServer, make: Make) -> None:
    requests = asks(8)

    def last_first(exchange: Any, body: Body) -> None:
        number = int(body["messages"][0]["content"].split()[-1])
        server.wait_for(lambda: len(server.answered) >= 7 - number)
        exchange.send(200, answer_to(body))

    server.misbehaviours.extend([last_first] * 8)
    assert texts(make(max_concurrency=8).reply(requests, models={})) == expected(requests)
    assert server.answered[0]["messages"][0]["content"] == "question 7"


@pytest.mark.parametrize("damage", ["text", "middle", "other"])
def test_a_corrupt_cache_is_reported_with_advice(
    server: EndpointServer, make: Make, tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "cache" / "grader.jsonl"
    if damage == "middle":
        chat = make()
        chat.reply(asks(50), models={})
        chat.close()
        raw = bytearray(file.read_bytes())
        raw[4096:] = os.urandom(len(raw) - 4096)
        file.write_bytes(raw)
    elif damage == "text":
        file.parent.mkdir()
        file.write_text("not a database\n" * 400)
    else:
        file.parent.mkdir()
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE replies (something TEXT)")
    with pytest.raises(StoreError, match=rf"{re.escape(str(file))}: .*move the file away.*same command"):
        make().reply(asks(50), models={})


def test_a_cache_that_is_not_writable_is_reported(server: EndpointServer, make: Make, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="choose a path whose parents are folders"):
        make().reply([ask()], models={})
    assert not server.received


# --- draws ---------------------------------------------------------------------------------------------------------


def test_draws_of_a_prompt_are_one_request_and_each_has_its_seed(server: EndpointServer, make: Make) -> None:
    requests = [ask(n=3, seed=2**31 + 7)]
    assert texts(make().reply(requests, models={})) == [[f"reply to hello with seed {7 + i}" for i in range(3)]]
    (body,) = server.received
    assert body["n"] == 3
    # Two more replies to the same prompt: only these are requested.
    more = make().reply([ask(n=5, seed=7)], models={})
    assert texts(more) == [[f"reply to hello with seed {7 + i}" for i in range(5)]]
    assert (server.received[1]["n"], server.received[1]["seed"]) == (2, 10)
    # The second reply equals the only one of this request.
    assert texts(make().reply([ask(seed=8)], models={})) == [["reply to hello with seed 8"]]
    assert len(server.received) == 2


def test_a_gap_between_cached_replies_is_filled_without_requesting_them(server: EndpointServer, make: Make) -> None:
    make().reply([ask(seed=2)], models={})
    requests = [ask(seed=0, n=5)]
    assert texts(make().reply(requests, models={})) == expected(requests)
    assert sorted((body["seed"], body.get("n", 1)) for body in server.received[1:]) == [(0, 2), (3, 2)]


@pytest.mark.parametrize("num_given", [1, 2])
def test_missing_replies_of_a_server_are_requested_again(server: EndpointServer, make: Make, num_given: int) -> None:
    server.answer = lambda body: answer_to(body, num_choices=min(body.get("n", 1), num_given))
    requests = asks(3, n=5)
    assert texts(make().reply(requests, models={})) == expected(requests)
    assert len(server.received) == 3 * math.ceil(5 / num_given)
    assert texts(make().reply(requests, models={})) == expected(requests)
    assert len(server.received) == 3 * math.ceil(5 / num_given)


@pytest.mark.parametrize("words", ["'n' : number must be at most 1", "Only one completion choice is allowed"])
def test_a_server_that_refuses_several_draws_gets_single_ones(server: EndpointServer, make: Make, words: str) -> None:
    refuse_many(server, words)
    requests = asks(4, n=3)
    chat = make(max_concurrency=2)
    assert texts(chat.reply(requests, models={})) == expected(requests)
    num_received = len(server.received)
    assert num_received <= 12 + 2  # each thread was refused once at most
    assert texts(make().reply(requests, models={})) == expected(requests)
    assert len(server.received) == num_received
    assert len(server.answered) == 12


def refuse_many(server: EndpointServer, words: str) -> None:
    def choose(exchange: Any, body: Body) -> None:
        server.misbehaviours.append(choose)
        if body.get("n", 1) > 1:
            status(400, words)(exchange, body)
        else:
            exchange.send(200, answer_to(body))

    server.misbehaviours.extend([choose] * 4)


def test_choices_are_sorted_by_index(server: EndpointServer, make: Make) -> None:
    def backwards(body: Body) -> Body:
        answer = answer_to(body)
        return {**answer, "choices": answer["choices"][::-1]}

    server.answer = backwards
    assert texts(make().reply([ask(n=3)], models={})) == expected([ask(n=3)])


def test_greedy_replies_are_requested_once(server: EndpointServer, make: Make) -> None:
    chat = make()
    ((first, second, third),) = chat.reply([ask(n=3, temperature=0.0)], models={})
    assert first == second == third
    assert "n" not in server.received[0]
    assert chat.usage()["num_generated_tokens"] == TOKENS_PER_CHOICE


def test_the_same_draw_twice_in_a_call_is_sent_once_and_another_seed_is_another(
    server: EndpointServer, make: Make
) -> None:
    requests = [ask(seed=0, n=2), ask(seed=1, n=2), ask(seed=0, n=2), ask(seed=9)]
    assert texts(make().reply(requests, models={})) == expected(requests)
    assert server.texts_answered == sorted(f"reply to hello with seed {seed}" for seed in (0, 1, 2, 9))


# --- cost, rate limit, keys ----------------------------------------------------------------------------------------


def cost_of(num_replies: int) -> float:
    return num_replies * (TOKENS_PER_PROMPT + TOKENS_PER_CHOICE)


def test_a_budget_holds_over_sessions_and_is_never_exceeded(server: EndpointServer, make: Make) -> None:
    requests = asks(20)
    money = {"price": PRICE, "max_concurrency": 4}
    # An estimate of the prompt and 5 tokens for the reply: some replies fit into the budget, then no more.
    with pytest.raises(BudgetError, match=r"models\.grader.*is spent.*models\.grader\.budget") as e:
        make(**money, budget=100).reply(requests, models={})
    assert e.value.exit_code == 3
    num_paid = len(server.answered)
    assert 4 <= num_paid <= 100 // cost_of(1)
    for _ in range(2):
        with pytest.raises(BudgetError, match=rf"{cost_of(num_paid):g} is spent"):
            make(**money, budget=100).reply(requests, models={})
    assert len(server.received) == num_paid
    chat = make(**money, budget=cost_of(20) + 100)
    assert texts(chat.reply(requests, models={})) == expected(requests)
    assert chat.usage()["cost"] == cost_of(20 - num_paid)
    assert len(server.answered) == 20


def test_a_maximum_cost_that_is_not_reached_does_not_stop_the_run(server: EndpointServer, make: Make) -> None:
    """Four requests in flight could cost four times 100; they cost 12 each."""
    requests = asks(12, max_tokens=100)
    chat = make(price=PRICE, max_concurrency=4, budget=cost_of(12) + 150)
    assert texts(chat.reply(requests, models={})) == expected(requests)


def counting(num_prompt_tokens: int) -> Callable[[Body], Body]:
    usage = {"prompt_tokens": num_prompt_tokens, "completion_tokens": TOKENS_PER_CHOICE}
    return lambda body: {**answer_to(body), "usage": usage}


def test_a_budget_holds_where_a_server_counts_far_more_than_the_prompt(server: EndpointServer, make: Make) -> None:
    """Eight requests fit into the budget by the length of their texts, four by the server's count of 2005 each."""
    server.answer = counting(2000)
    chat = make(price=PRICE, budget=10_000, max_concurrency=8)
    with pytest.raises(BudgetError, match=r"8020 is spent, and the next request may cost 200[56]; 10000 in total"):
        chat.reply(asks(8), models={})
    assert len(server.received) == 4
    assert chat.usage()["cost"] == 8020
    # The largest count is used, not the last.
    server.answer = counting(20)
    chat = make(price=PRICE, budget=14_000, max_concurrency=1)
    server.misbehaviours.append(lambda exchange, body: exchange.send(200, counting(2000)(body)))
    with pytest.raises(BudgetError, match=r"the next request may cost 200[56]; "):
        chat.reply([ask(f"a task {i:03}") for i in range(200)], models={})


@pytest.mark.parametrize("content", ["x" * 3000, "你" * 1000])
def test_before_the_first_count_each_byte_is_assumed_to_be_a_token(
    server: EndpointServer, make: Make, content: str
) -> None:
    """3000 bytes exceed the budget at one token per byte, but not at one token per three bytes."""
    money = {"price": PRICE, "budget": 2000, "max_concurrency": 1}
    with pytest.raises(BudgetError, match=r"0 is spent, and the next request may cost 30[0-9]{2}; 2000 in total"):
        make(**money).reply([ask(content)], models={})
    assert not server.received
    requests = [ask("hello"), ask(content)]
    assert texts(make(**money).reply(requests, models={})) == expected(requests)


@pytest.mark.parametrize("left_out", [(), ("usage",)])
def test_with_a_budget_all_go_at_once_after_the_first_answer(
    server: EndpointServer, make: Make, left_out: tuple[str, ...]
) -> None:
    """Also when the server does not count tokens."""

    def first(exchange: Any, body: Body) -> None:
        exchange.send(200, {key: value for key, value in answer_to(body).items() if key not in left_out})

    def together(exchange: Any, body: Body) -> None:
        server.wait_for(lambda: len(server.received) == 4)
        first(exchange, body)

    server.misbehaviours.extend([first, together, together, together])
    requests = asks(4)
    assert texts(make(price=PRICE, budget=1000, max_concurrency=3).reply(requests, models={})) == expected(requests)
    assert len(server.received) == 4


@pytest.mark.parametrize("loss", [drop, truncate, raw_answer(b'{"choices": 3}')])
def test_a_lost_answer_counts_as_charged(server: EndpointServer, make: Make, loss: Misbehaviour) -> None:
    """Its maximum cost, over 100 here, is spent for this session and the next."""
    server.misbehaviours.append(loss)
    money = {"price": PRICE, "budget": 200}
    for _ in range(2):
        with pytest.raises(BudgetError, match=r"1[0-9]{2} is spent"):
            make(**money).reply([ask(max_tokens=100)], models={})
    assert len(server.received) == 1


def test_an_error_costs_nothing(server: EndpointServer, make: Make) -> None:
    server.misbehaviours.extend([status(500), status(429, retry_after="0"), status(503)])
    chat = make(price=PRICE, budget=200)
    chat.reply([ask(max_tokens=100)], models={})
    assert chat.usage()["cost"] == cost_of(1)


def test_without_the_servers_count_a_reply_costs_its_maximum(server: EndpointServer, make: Make) -> None:
    server.answer = lambda body: {key: value for key, value in answer_to(body).items() if key != "usage"}
    chat = make(price={"prompt": 0.0, "generated": 1e6})
    chat.reply([ask(max_tokens=30, n=2)], models={})
    assert chat.usage()["cost"] == 60


def test_usage_counts_what_the_server_counted(server: EndpointServer, make: Make) -> None:
    chat = make(price={"prompt": 2.0, "generated": 4.0})
    chat.reply(asks(3, n=2), models={})
    assert chat.usage() == {
        "num_requests": 3,
        "num_prompt_tokens": 3 * TOKENS_PER_PROMPT,
        "num_generated_tokens": 6 * TOKENS_PER_CHOICE,
        "num_cached_replies": 0,
        "num_retries": 0,
        "cost": pytest.approx((3 * TOKENS_PER_PROMPT * 2 + 6 * TOKENS_PER_CHOICE * 4) / 1e6),
    }
    assert "cost" not in make().usage()


def test_no_minute_holds_more_requests_than_allowed() -> None:
    now = 100.0
    limiter = RateLimiter(30, clock=lambda: now)
    assert [limiter.wait_s() for _ in range(4)] == [0, 2, 4, 6]
    now = 200.0  # unused slots do not accumulate
    assert [limiter.wait_s() for _ in range(3)] == [0, 2, 4]
    assert [RateLimiter(None).wait_s() for _ in range(3)] == [0, 0, 0]


def test_the_rate_limit_holds_over_threads_and_attempts(server: EndpointServer, make: Make) -> None:
    server.misbehaviours.extend([status(429, retry_after="0")] * 2)
    started = time.monotonic()
    make(max_requests_per_minute=600, max_concurrency=8).reply(asks(6), models={})
    assert len(server.received) == 8
    assert server.received_at[-1] - started >= 0.7  # the eighth slot, a tenth of a second apart


def test_the_key_is_sent_and_occurs_nowhere_else(
    server: EndpointServer, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any
) -> None:
    caplog.set_level(0)
    monkeypatch.setenv("GRADER_KEY", KEY + "\n")
    chat = make(api_key_env="GRADER_KEY", max_attempts=1, max_concurrency=1)
    said = []
    for answer in (
        status(401, f"Incorrect API key provided: {KEY}."),
        status(401, f"Incorrect API key provided: {KEY[:7]}*******{KEY[-4:]}."),
        status(500, f"{'x' * 290} {KEY}"),
        raw_answer(f"no JSON but {KEY}".encode()),
    ):
        server.misbehaviours.append(answer)
        with pytest.raises(EngineError) as e:
            chat.reply([ask("other")], models={})
        said.append(str(e.value))
    server.answer = lambda body: answer_to(body, message={"content": f"your key is {KEY}"})
    ((reply,),) = chat.reply([ask()], models={})
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    said += [repr(reply), repr(chat.usage()), chat.model_id({}), repr(chat), chat.by]
    chat.close()
    said += [caplog.text, *capsys.readouterr()]
    found = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert found
    assert all(KEY[:8] not in text and KEY[-4:] not in text for text in said)
    assert all(KEY.encode() not in raw for raw in found)


def test_without_a_key_a_placeholder_is_sent(server: EndpointServer, make: Make) -> None:
    make().reply([ask()], models={})
    assert server.headers[0]["Authorization"] == "Bearer none"


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "clé"])
def test_a_missing_key_is_reported_at_once(make: Make, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("GRADER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("GRADER_KEY", value)
    with pytest.raises(RecipeError, match=r"models\.grader\.api_key_env.*GRADER_KEY") as e:
        make(api_key_env="GRADER_KEY")
    assert not value or not value.strip() or value not in str(e.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"endpoint": "localhost:8000"}, "is not a URL"),
        ({"endpoint": "http://host:port/v1"}, "is not a URL"),
        ({"endpoint": "http://me:pw@host/v1"}, "must not contain secrets"),
        ({"api_key_env": "sk-12-34"}, "must not contain secrets"),
        ({"extra_body": {"n": 2, "stream": True}}, "n, stream would break"),
        ({"budget": 1.0}, "price"),
        ({"budget": 1.0, "price": PRICE, "extra_body": {"max_tokens": None}}, "budget"),
    ],
)
def test_an_invalid_endpoint_section_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as e:
        EndpointSection.model_validate({"endpoint": "http://host/v1", "model": "m", **settings})
    assert all("sk-12" not in problem["msg"] and ":pw@" not in problem["msg"] for problem in e.value.errors())


# --- request bodies and choices ------------------------------------------------------------------------------------


def test_request_bodies(server: EndpointServer, make: Make) -> None:
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}}
    request = ChatRequest(
        (Message("system", "be brief"), Message("user", "hello")),
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=2**40 + 3,
        json_schema=schema,
    )
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "seed": None, "top_k": 4}
    server.answer = lambda body: answer_to({**body, "seed": 0})
    make(endpoint=server.url + "/", extra_body=extra).reply([request], models={})
    assert server.received == [
        {
            "model": "judge",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": schema, "strict": True},
            },
            "chat_template_kwargs": {"enable_thinking": False},
            "top_k": 4,
        }
    ]


def test_a_server_with_another_name_of_the_token_limit_is_supported(server: EndpointServer, make: Make) -> None:
    server.misbehaviours.append(status(400, "Unsupported parameter: use 'max_completion_tokens' instead"))
    chat = make(max_concurrency=1)
    requests = asks(3)
    assert texts(chat.reply(requests, models={})) == expected(requests)
    assert len(server.received) == 4
    assert [body.get("max_tokens") for body in server.received] == [5, None, None, None]
    assert [body.get("max_completion_tokens") for body in server.received] == [None, 5, 5, 5]
    make().reply(requests, models={})  # the same replies, regardless of the name of the limit
    assert len(server.received) == 4


def written(*tokens: str, **alternatives: float) -> dict[str, Any]:
    """Return a choice whose text is `tokens`; each token has `alternatives` with the choices' log-probabilities."""
    content = [
        {
            "token": token,
            "logprob": -0.25,
            "top_logprobs": [{"token": token, "logprob": -0.25}]
            + [{"token": name.replace("_", " "), "logprob": value} for name, value in alternatives.items()],
        }
        for token in tokens
    ]
    return {"message": {"content": "".join(tokens)}, "logprobs": {"content": content}}


def logprobs_of(server: EndpointServer, make: Make, choice: dict[str, Any], **settings: Any) -> Reply:
    server.answer = lambda body: answer_to(body, **choice)
    request = ask(**{"max_tokens": 0, "temperature": 0.0, "opening": OPENING, "choices": SCORES, **settings})
    ((reply,),) = make().reply([request], models={})
    return reply


@pytest.mark.parametrize(
    "tokens",
    [
        ("4",),
        (" 4", "/", "5"),
        ("Score", ":", " 4", ".", " Good"),
        ("**", "Score", ":**", " ", "**", "4", "**"),
        ("**4**",),
        ("Score: 2\n", "Score", " :", "\n", "4"),
        ("Response ", "4"),
        ("<think>", "Score:", "5", "</think>", "\n", "4"),
    ],
)
def test_the_token_of_the_verdict_is_found(server: EndpointServer, make: Make, tokens: tuple[str, ...]) -> None:
    reply = logprobs_of(server, make, written(*tokens))
    assert reply.text == "".join(tokens)
    assert reply.choice_logprobs == (-math.inf,) * 4 + (-0.25, -math.inf)
    asked = server.received[0]
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 20)
    assert 16 <= asked["max_tokens"] <= 24


@pytest.mark.parametrize(
    ("max_tokens", "tokens"),
    [
        (0, ("Score", ":", " good")),
        (0, ("Score", ":", " good, I mean ", "3")),
        (0, ("Score", ":", " out of ", "5", " I give ", "3")),
        (0, ("Score", ":", " 1", "0")),
        (0, ("4", ".", "5")),
        (0, ("I", " think ", "3", " or ", "4")),
        (0, ("<think>", "Score", ":", " 4")),
        (0, ("4th",)),
        (50, ("4",)),
        (50, ("I give it a ", "4")),
        (50, ("Score:", " 4", "\n", "Score", ":")),
    ],
)
def test_an_ambiguous_position_gives_no_probabilities(
    server: EndpointServer, make: Make, max_tokens: int, tokens: tuple[str, ...]
) -> None:
    reply = logprobs_of(server, make, written(*tokens), max_tokens=max_tokens)
    assert reply == Reply(text="".join(tokens), finish_reason="stop")


def test_tokens_of_the_same_choice_are_summed_after_free_text(server: EndpointServer, make: Make) -> None:
    choice = written(
        "It is fine. ", "Score", ":", " 4", **{"4": -1.5, "_4_": -2.0, "3": -3.0, "44": -1.0, "5": -9999.0}
    )
    reply = logprobs_of(server, make, choice, max_tokens=100)
    total = math.log(math.exp(-0.25) + math.exp(-1.5) + math.exp(-2.0))
    assert reply.choice_logprobs[4] == pytest.approx(min(total, 0.0))
    assert reply.choice_logprobs[3] == -3.0
    assert reply.choice_logprobs[5] == -math.inf
    assert server.received[0]["max_tokens"] >= 116
    # The same from the cache, including infinities; other choices need another reply.
    assert logprobs_of(server, make, {}, max_tokens=100) == reply
    assert len(server.received) == 1
    other = logprobs_of(server, make, choice, max_tokens=100, choices=("3", "4"))
    assert other.choice_logprobs == reply.choice_logprobs[3:5]


def test_a_different_way_of_parsing_gives_a_different_cache_key(server: EndpointServer, make: Make) -> None:
    """The recipe's `extra_body` makes the bodies the same, with and without free text."""
    server.answer = lambda body: answer_to(body, **written("4"))
    requests = [ask(max_tokens=n, temperature=0.0, opening=OPENING, choices=SCORES) for n in (0, 50)]
    ((at_once,), (after_text,)) = make(extra_body={"max_tokens": 60}).reply(requests, models={})
    assert at_once.choice_logprobs[4] == -0.25
    assert after_text.choice_logprobs == ()


def test_letters_after_an_opening_that_ends_in_a_bracket(server: EndpointServer, make: Make) -> None:
    choice = written("The better one is", " (", "B", ")", A=-2.0)
    reply = logprobs_of(server, make, choice, opening="The better one is (", choices=("A", "B"))
    assert reply.choice_logprobs == (-2.0, -0.25)


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": None},
        {"content": [None, {"token": 3}, "x"]},
        {"content": [{"token": "4", "logprob": -0.1}]},
        {"content": [{"token": "4", "logprob": -0.1, "top_logprobs": []}]},
        {"tokens": ["4"]},
    ],
)
def test_a_server_without_probabilities_returns_its_text(server: EndpointServer, make: Make, logprobs: Any) -> None:
    reply = logprobs_of(server, make, {"message": {"content": "4"}, "logprobs": logprobs})
    assert reply == Reply(text="4", finish_reason="stop")


def test_a_server_that_refuses_probabilities_gets_requests_for_fewer_and_then_none(
    server: EndpointServer, make: Make
) -> None:
    server.misbehaviours.extend([status(400, "top_logprobs must be at most 5"), status(400, "logprobs: unsupported")])
    reply = logprobs_of(server, make, {"message": {"content": "4"}})
    assert reply == Reply(text="4", finish_reason="stop")
    assert [body.get("top_logprobs") for body in server.received] == [20, 5, None]
    assert "logprobs" not in server.received[2]


def test_the_model_id_contains_no_scheme_and_no_path(server: EndpointServer, make: Make) -> None:
    host = server.url.removeprefix("http://").removesuffix("/v1")
    assert make(model="org/judge").model_id({}) == f"endpoint:{host}/org/judge"
    assert make().by == "grader"


def test_importing_the_command_line_imports_no_http_client() -> None:
    code = (
        "import sys\nimport selfreward.cli, selfreward.chats.endpoint\n"
        "slow = {'httpx', 'tenacity', 'tqdm', 'openai', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_progress_bar_without_a_terminal(server: EndpointServer, make: Make, capfd: Any) -> None:
    make().reply(asks(3), models={})
    assert capfd.readouterr() == ("", "")
