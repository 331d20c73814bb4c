"""Servers that send anything: each answer is read, unscored with a reason, or one clean sentence; never a traceback."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cases.hostile_servers import (
    FAILURES,
    FLAG,
    GOOD,
    HUGE,
    KEY,
    OK,
    READ,
    SLOW,
    UNSCORED,
    body_of,
    choice,
    error,
    good,
    http,
    wire,
)  # fmt: skip
from fakes.endpoint_server import Body, EndpointServer, Exchange, Misbehaviour, status

from selfreward.chats import endpoint
from selfreward.chats.endpoint import EndpointChat
from selfreward.chats.endpoint_serving import NUM_REFUSED
from selfreward.chats.endpoint_wait import retry_after_s
from selfreward.errors import EngineError
from selfreward.recipe import EndpointSection
from selfreward.records import Message
from selfreward.requests import ChatRequest, Reply


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("HOSTILE_KEY", KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[EndpointServer]:
    with EndpointServer() as server:
        yield server


@pytest.fixture
def make(server: EndpointServer, tmp_path: Path) -> Iterator[Callable[..., EndpointChat]]:
    made: list[EndpointChat] = []

    def new(**settings: Any) -> EndpointChat:
        values = {"endpoint": server.url, "model": "judge", "max_attempts": 2, "timeout_s": 20.0, "max_concurrency": 1}
        section = EndpointSection.model_validate({**values, "api_key_env": "HOSTILE_KEY", **settings})
        made.append(EndpointChat("grader", section, cache_file=tmp_path / "grader.jsonl"))
        return made[-1]

    server.received.clear()
    server.misbehaviours.clear()
    yield new
    server.misbehaviours.clear()
    for chat in made:
        chat.close()


def ask(text: str, **settings: Any) -> ChatRequest:
    values = {"max_tokens": 50, "temperature": 0.7, "top_p": 0.9, **settings}
    return ChatRequest((Message("user", text),), **values)


ASKS = [ask("one"), ask(f"two {FLAG}"), ask("three")]


def serve(server: EndpointServer, misbehaviour: Misbehaviour) -> None:
    """Answer the flagged question with `misbehaviour`, and the others well."""

    def choose(exchange: Exchange, body: Body) -> None:
        server.misbehaviours.append(choose)
        if FLAG in json.dumps(body["messages"]):
            misbehaviour(exchange, body)
        else:
            exchange.send(200, good(body))

    server.misbehaviours.append(choose)


@pytest.mark.parametrize("name", READ)
def test_a_paid_reply_is_read_whatever_comes_with_it(
    server: EndpointServer, make: Callable[..., EndpointChat], name: str
) -> None:
    serve(server, READ[name])
    chat = make()
    replies = chat.reply(ASKS, models={})
    assert [reply.text for (reply,) in replies] == [GOOD] * 3
    assert [reply.skipped for (reply,) in replies] == [None] * 3
    num_received = len(server.received)
    assert num_received == 3
    assert make().reply(ASKS, models={}) == replies  # from the file
    assert len(server.received) == num_received


def test_unusable_counts_are_told_once(server: EndpointServer, make: Callable[..., EndpointChat]) -> None:
    serve(server, READ["usage_nan"])
    chat = make(price={"prompt": 0.0, "generated": 1e6})
    chat.reply([*ASKS, ask(f"more {FLAG}")], models={})
    assert [note.partition(": ")[2][:60] for note in chat.notes()] == [
        "the server's token counts cannot be used; a reply without the"[:60]
    ]
    assert chat.usage()["cost"] == 2 * 5 + 2 * 50  # what the server counted, and twice the maximum


def test_a_truncated_reply_is_recognised_in_other_words(
    server: EndpointServer, make: Callable[..., EndpointChat]
) -> None:
    for words in ("length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens"):
        serve(server, choice(finish_reason=words))
        ((reply,),) = make().reply([ask(f"{words} {FLAG}")], models={})
        assert reply.finish_reason == "length", words
        server.misbehaviours.clear()


NOT_A_LOGPROB = [HUGE, float("nan"), float("inf"), 3.5, True, "-0.1", None, [-0.1], {}]


@pytest.mark.parametrize("value", NOT_A_LOGPROB)
def test_a_choice_without_a_usable_number_gives_no_probabilities(
    server: EndpointServer, make: Callable[..., EndpointChat], value: Any
) -> None:
    """A missing number is not a probability of 0, and loses neither the text nor the run."""
    alternatives = [{"token": "4", "logprob": value}, {"token": "5", "logprob": -2.0}, {"token": "x", "logprob": HUGE}]
    content = [{"token": "5", "logprob": -2.0, "top_logprobs": alternatives}]
    server.misbehaviours.append(choice(logprobs={"content": content}))
    ((reply,),) = make().reply([ask("one", max_tokens=0, choices=("4", "5"))], models={})
    assert (reply.text, reply.choice_logprobs) == (GOOD, ())


@pytest.mark.parametrize(("reason", "name"), [(reason, name) for reason, cases in UNSCORED.items() for name in cases])
def test_one_request_that_is_not_served_is_unscored_at_once_and_remembered(
    server: EndpointServer, make: Callable[..., EndpointChat], reason: str, name: str
) -> None:
    serve(server, UNSCORED[reason][name])
    replies = make().reply(ASKS, models={})
    assert [reply.text for (reply,) in (replies[0], replies[2])] == [GOOD] * 2
    assert replies[1] == [Reply(skipped=reason)]
    assert len(server.received) == 3
    assert make().reply(ASKS, models={}) == replies
    assert len(server.received) == 3


@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_be_read_is_one_clean_sentence(
    server: EndpointServer, make: Callable[..., EndpointChat], name: str
) -> None:
    misbehaviour, words = FAILURES[name]
    serve(server, misbehaviour)
    with pytest.raises(EngineError, match=words) as e:
        make(max_attempts=1).reply(ASKS[1:2], models={})
    said = str(e.value)
    assert said.isprintable() and len(said) < 900
    assert KEY[:8] not in said
    # Nothing of it is remembered.
    server.misbehaviours.clear()
    server.misbehaviours.append(lambda exchange, body: exchange.send(200, good(body)))
    assert [reply.text for (reply,) in make().reply(ASKS[1:2], models={})] == [GOOD]


RETRIED = ["html", "no_content", "deep", "broken_off", "error_inside", "status_999", "no_http", "chunks_end_early",
           "content_length_is_a_lie", "not_gzip"]  # fmt: skip


@pytest.mark.parametrize("name", RETRIED)
def test_what_may_pass_is_tried_again(server: EndpointServer, make: Callable[..., EndpointChat], name: str) -> None:
    server.misbehaviours.extend([FAILURES[name][0], lambda exchange, body: exchange.send(200, good(body))])
    ((reply,),) = make().reply([ask("one")], models={})
    assert reply.text == GOOD
    assert len(server.received) == 2


@pytest.mark.parametrize(
    "value",
    ["soon", "-5", "1e9", "nan", "inf", "", "Mon, 99 Foo 20 99:99:99 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "\x80\xff",
     "Fri, 31 Dec 99999999999999999999 23:59:59 GMT", "Fri, 31 Dec 2026 23:59:59 +9999999999", "9" * 3000, "0x10"],
)  # fmt: skip
def test_a_wait_that_cannot_be_read_is_not_waited_for(
    server: EndpointServer, make: Callable[..., EndpointChat], value: str
) -> None:
    server.misbehaviours.extend(
        [status(429, "slow", retry_after=value), lambda exchange, body: exchange.send(200, good(body))]
    )
    started = time.monotonic()
    ((reply,),) = make().reply([ask("one")], models={})
    assert reply.text == GOOD
    assert time.monotonic() - started < 5


def test_a_date_in_the_past_is_no_wait() -> None:
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) is None
    assert retry_after_s({"retry-after": "0"}) == 0
    assert retry_after_s({"retry-after-ms": "1500", "retry-after": "7"}) == 1.5


def test_cookies_are_not_sent_back(server: EndpointServer, make: Callable[..., EndpointChat]) -> None:
    num_before = len(server.headers)
    serve(server, wire(http(OK, b"Set-Cookie: a=b; Path=/")))
    make().reply([ask(f"{i} {FLAG}") for i in range(2)], models={})
    assert len(server.headers) == num_before + 2
    assert not any("cookie" in name.lower() for headers in server.headers[num_before:] for name in headers)


@pytest.mark.parametrize(
    "slow",
    [
        wire(b"", after=b"HTTP/1.1 200 OK\r\n" + b"X-Drip: y\r\n" * 1000, pause_s=0.02),
        wire(b"HTTP/1.1 200 OK\r\n", after=b"X-Drip: y\r\n" * 1000, pause_s=0.02),
        wire(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", after=b" " * 9999, pause_s=0.02),
        wire(b"HTTP/1.1 429 Slow\r\nContent-Length: 9999\r\n\r\n", after=b" " * 9999, pause_s=0.02),
        wire(b"", after=b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, pause_s=0.02),
    ],
    ids=["status", "headers", "body", "error", "information"],
)
def test_the_time_of_an_exchange_is_bounded_however_it_drips(
    server: EndpointServer, make: Callable[..., EndpointChat], slow: Misbehaviour
) -> None:
    serve(server, slow)
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"no answer within 0\.4 s"):
        make(**SLOW).reply([ask(FLAG)], models={})
    assert time.monotonic() - started < 3


def test_a_redirect_never_carries_the_key_elsewhere(server: EndpointServer, make: Callable[..., EndpointChat]) -> None:
    with EndpointServer() as elsewhere:
        serve(server, wire(http(b"", f"Location: {elsewhere.url}".encode(), line=b"HTTP/1.1 308 Moved")))
        with pytest.raises(EngineError, match="308: Permanent Redirect"):
            make().reply([ask(FLAG)], models={})
        assert not elsewhere.received


def test_the_key_is_hidden_in_a_text_that_escapes_it(server: EndpointServer, make: Callable[..., EndpointChat]) -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in KEY)
    server.misbehaviours.append(body_of('{"choices": [{"message": {"content": "' + escaped + '"}}]}'))
    assert make().reply([ask("one")], models={}) == [[Reply(text="***", finish_reason="stop")]]


# --- a server that refuses everything --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("Your prompt was flagged: invalid_prompt", "use another provider"),
        ("The prompt is too long", "use a model with a longer context"),
        ("no such thing", "check model and extra_body"),
    ],
)
def test_a_server_that_refuses_all_ends_the_run_and_nothing_is_remembered(
    server: EndpointServer, make: Callable[..., EndpointChat], words: str, advice: str
) -> None:
    for num_requests, num_sent in ((2, 2), (NUM_REFUSED + 20, NUM_REFUSED)):
        serve(server, error(400, words))
        with pytest.raises(EngineError, match=f"{words}.*{advice}") as e:
            make().reply([ask(f"{i} {FLAG}") for i in range(num_requests)], models={})
        assert e.value.exit_code == 4
        assert len(server.received) == num_sent
        server.misbehaviours.clear()
        server.received.clear()
    server.misbehaviours.extend([lambda exchange, body: exchange.send(200, good(body))] * 2)
    assert all(reply.text == GOOD for (reply,) in make().reply([ask(f"{i} {FLAG}") for i in range(2)], models={}))


def test_a_server_that_serves_may_refuse_many_prompts(
    server: EndpointServer, make: Callable[..., EndpointChat]
) -> None:
    serve(server, error(400, "Your prompt was flagged", code="invalid_prompt"))
    make().reply([ask("one")], models={})
    flagged = [ask(f"{i} {FLAG}") for i in range(NUM_REFUSED + 5)]
    for _ in range(2):  # also in another session
        replies = make().reply(flagged, models={})
        assert [reply.skipped for (reply,) in replies] == ["refused"] * len(flagged)
    assert len(server.received) == 1 + len(flagged)


def test_refusals_without_a_known_reason_in_a_row_end_the_run(
    server: EndpointServer, make: Callable[..., EndpointChat]
) -> None:
    serve(server, error(400, "The model has gone"))
    make().reply([ask("one")], models={})
    with pytest.raises(EngineError, match="400: The model has gone"):
        make().reply([ask(f"{i} {FLAG}") for i in range(NUM_REFUSED + 5)], models={})
    assert len(server.received) == 1 + NUM_REFUSED


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", "", {"choices": [{"finish_reason": "error"}]}, {"id": 1}])
def test_garbage_for_one_prompt_is_unscored_after_all_attempts_and_not_paid_again(
    server: EndpointServer, make: Callable[..., EndpointChat], body: object
) -> None:
    serve(server, body_of(body))
    asks = [ask(f"one {FLAG}"), ask("two"), ask("three")]
    for _ in range(2):  # also in another session
        (flagged,), *others = make().reply(asks, models={})
        assert flagged.skipped == "refused" and all(reply.text == GOOD for (reply,) in others)
    assert len(server.received) == 2 + 2


def test_garbage_for_all_prompts_ends_the_run(server: EndpointServer, make: Callable[..., EndpointChat]) -> None:
    serve(server, body_of("<html>Bad gateway</html>"))
    with pytest.raises(EngineError, match=r"no answer after 2 attempts.*not JSON.*Bad gateway"):
        make().reply([ask(f"{i} {FLAG}") for i in range(3)], models={})
    server.misbehaviours.clear()
    serve(server, body_of({"choices": []}))
    assert [reply.text for (reply,) in make().reply([ask("0"), ask("1")], models={})] == [GOOD] * 2


# --- keys that a server does not know --------------------------------------------------------------------------------


def refuse_keys(server: EndpointServer, words: dict[str, Any], code: int = 400) -> None:
    """Refuse each request that has one of the keys, with its words: a message, or a whole body."""

    def choose(exchange: Exchange, body: Body) -> None:
        server.misbehaviours.append(choose)
        found = next((value for key, value in words.items() if key in body), None)
        if found is None:
            exchange.send(200, good(body))
        else:
            exchange.send(code, {"error": {"message": found}} if isinstance(found, str) else found)

    server.misbehaviours.append(choose)


UNKNOWN: dict[str, tuple[str, Any, int]] = {
    "openai": ("temperature", "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default "
               "(1) value is supported.", 400),
    "openai_parameter": ("top_p", {"error": {"message": "Unsupported parameter: 'top_p' is not supported with this "
                         "model.", "param": "top_p", "code": "unsupported_parameter"}}, 400),
    "azure": ("seed", "Unrecognized request argument supplied: seed", 400),
    "anthropic": ("seed", "seed: Extra inputs are not permitted", 400),
    "pydantic": ("seed", {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not "
                 "permitted", "input": 7}]}, 422),
    "mistral": ("seed", {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"],
                "msg": "Extra inputs are not permitted", "input": 0}]}}, 422),
    "moonshot": ("temperature", "invalid temperature: only 1 is allowed for this model", 400),
    "thinking": ("temperature", "`temperature` may only be set to 1 when thinking is enabled.", 400),
    "to_be_omitted": ("temperature", "The parameter temperature is ignored and must be omitted", 400),
    "not_accepted": ("temperature", "This model does not accept temperature", 400),
    "not_valid": ("temperature", "temperature is not a valid parameter", 400),
    "groq": ("top_p", "property 'top_p' is unsupported", 400),
    "gemini": ("seed", 'Invalid JSON payload received. Unknown name "seed": Cannot find field.', 400),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_key_that_the_server_does_not_know_is_left_out_from_then_on(
    server: EndpointServer, make: Callable[..., EndpointChat], name: str
) -> None:
    key, words, code = UNKNOWN[name]
    refuse_keys(server, {key: words}, code)
    chat = make()
    assert [reply.text for (reply,) in chat.reply(ASKS, models={})] == [GOOD] * 3
    assert [key in body for body in server.received] == [True, False, False, False]
    others = {"temperature", "top_p", "seed"} - {key}
    assert all(others <= body.keys() for body in server.received)
    (note,) = chat.notes()
    assert f"does not support {key}, so it is left out" in note
    again = make()
    again.reply(ASKS, models={})
    assert again.notes() == (note,)  # also when all replies are stored
    assert len(server.received) == 4


def test_all_keys_may_be_unknown_one_after_the_other(server: EndpointServer, make: Callable[..., EndpointChat]) -> None:
    refuse_keys(server, {key: f"Unsupported parameter: '{key}'" for key in ("temperature", "top_p", "seed")})
    chat = make()
    assert [reply.text for (reply,) in chat.reply(ASKS, models={})] == [GOOD] * 3
    assert len(server.received) == 6
    assert len(chat.notes()) == 3


def test_a_limit_that_is_not_known_is_sent_under_its_other_name(
    server: EndpointServer, make: Callable[..., EndpointChat]
) -> None:
    refuse_keys(server, {"max_tokens": "Unsupported parameter: 'max_tokens'"})
    chat = make()
    chat.reply(ASKS, models={})
    assert [body.get("max_completion_tokens") for body in server.received] == [None, 50, 50, 50]
    assert chat.notes() == ()


def test_a_server_without_schemas_is_explained(server: EndpointServer, make: Callable[..., EndpointChat]) -> None:
    refuse_keys(server, {"response_format": "This model does not support response_format of type json_schema"})
    with pytest.raises(EngineError, match="set `structured: false` in the judge"):
        make().reply([ask("one", json_schema={"type": "object"})], models={})


def test_of_two_keys_that_exclude_each_other_the_less_important_is_left_out(
    server: EndpointServer, make: Callable[..., EndpointChat]
) -> None:
    words = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    refuse_keys(server, {"top_p": words})
    chat = make()
    chat.reply(ASKS, models={})
    assert all("temperature" in body for body in server.received)
    assert len(server.received) == 4


def test_a_key_of_extra_body_is_not_left_out_in_silence(
    server: EndpointServer, make: Callable[..., EndpointChat]
) -> None:
    refuse_keys(server, {"temperature": "Unsupported value: 'temperature' does not support 0.3"})
    with pytest.raises(EngineError, match=r"refuses temperature, which extra_body sets.*models\.grader\.extra_body"):
        make(extra_body={"temperature": 0.3}).reply(ASKS, models={})


def test_a_value_out_of_range_is_not_left_out_in_silence(
    server: EndpointServer, make: Callable[..., EndpointChat]
) -> None:
    refuse_keys(server, {"temperature": "Invalid parameter: temperature must be between 0 and 1"})
    with pytest.raises(EngineError, match=r"extra_body: \{temperature: null\}"):
        make().reply([ask(f"{i}", temperature=1.5) for i in range(3)], models={})
