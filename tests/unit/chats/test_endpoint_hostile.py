"""Servers that send anything: each answer is read, unscored with a reason, or one clean sentence; never a traceback."""

import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.endpoint_server import Body, EndpointServer, Exchange, Misbehaviour, answer_to, status

from selfreward.chats import endpoint
from selfreward.chats.endpoint import EndpointChat
from selfreward.chats.endpoint_serving import NUM_REFUSED
from selfreward.chats.endpoint_wait import retry_after_s
from selfreward.errors import EngineError
from selfreward.recipe import EndpointSection
from selfreward.records import Message
from selfreward.requests import ChatRequest, Reply

KEY = "sk-test-0123456789-abcdef"
FLAG = "FLAGME"
GOOD = "It is right.\nScore: 4"
HUGE = int("9" * 400)


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


def good(body: Body, **choice: Any) -> Body:
    return answer_to(body | {"seed": 0}, **{"message": {"role": "assistant", "content": GOOD}, **choice})


def body_of(value: Any, **headers: str) -> Misbehaviour:
    """A 200 with this body: bytes, text, or a JSON value that may hold NaN, infinities and lone surrogates."""
    raw = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return lambda exchange, body: exchange.send(200, raw, headers=named)


def choice(**fields: Any) -> Misbehaviour:
    return lambda exchange, body: exchange.send(200, json.dumps(good(body, **fields)).encode())


def message(**fields: Any) -> Misbehaviour:
    return choice(message=fields)


def usage(value: Any) -> Misbehaviour:
    return lambda exchange, body: exchange.send(200, json.dumps({**good(body), "usage": value}).encode())


def wire(raw: bytes, *, after: bytes = b"", pause_s: float = 0.0) -> Misbehaviour:
    """Exactly these bytes; then `after` byte by byte with pauses, then the end of the connection."""

    def write(exchange: Exchange, body: Body) -> None:
        exchange.close_connection = True
        try:
            exchange.wfile.write(raw)
            for byte in after:
                if exchange.owner.closing.wait(pause_s):
                    return
                exchange.wfile.write(bytes([byte]))
        except OSError:
            pass

    return write


def http(body: bytes, *headers: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([line, length, *headers, b"", body])


def error(status_code: int, message: str, **fields: Any) -> Misbehaviour:
    return plain(status_code, {"error": {"message": message, **fields}})


def plain(code: int, value: Any) -> Misbehaviour:
    raw = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    return lambda exchange, body: exchange.send(code, raw)


def deep(value: str, depth: int = 100_000) -> str:
    return "[" * depth + value + "]" * depth


OK = json.dumps({"choices": [{"message": {"content": GOOD}}]}).encode()
BOMB = gzip.compress(b"\0" * 2**26)

# --- answers whose text counts ---------------------------------------------------------------------------------------

READ: dict[str, Misbehaviour] = {
    **{
        f"usage_{name}": usage({"prompt_tokens": value, "completion_tokens": 5})
        for name, value in {
            "400_digits": HUGE, "nan": float("nan"), "infinite": float("inf"), "negative": -1, "bool": True,
            "text": "7", "null": None, "list": [7], "fraction": 7.5, "10^17": 10**17,
        }.items()
    },
    "usage_is_a_list": usage([1, 2]),
    "usage_is_text": usage("many"),
    "usage_of_5000_digits": body_of(OK[:-1] + b', "usage": {"prompt_tokens": ' + b"1" * 5000 + b"}}"),
    "index_of_400_digits": choice(index=HUGE),
    "index_is_text": choice(index="first"),
    "index_is_missing": body_of(OK),
    "finish_reason_is_long": choice(finish_reason="x" * 100_000),
    "finish_reason_is_a_list": choice(finish_reason=["stop"]),
    "finish_reason_is_null": choice(finish_reason=None),
    "role_is_odd": message(role={"a": 1}, content=GOOD),
    "refusal_is_blank": message(content=GOOD, refusal=" "),
    "refusal_is_a_number": message(content=GOOD, refusal=7),
    "parts_of_odd_types": message(
        content=[None, 3, {"type": ["text"]}, {"type": "reasoning", "text": "Score: 1"}, {"type": "text", "text": GOOD}]
    ),
    "parts_that_are_texts": message(content=[GOOD]),
    "tool_calls_too": message(content=GOOD, tool_calls=[{"id": HUGE, "function": None}]),
    "reasoning_of_odd_types": message(content=GOOD, reasoning=[[]], reasoning_content=HUGE),
    "logprobs_are_text": choice(logprobs="none"),
    "error_is_null": body_of(OK[:-1] + b', "error": null}'),
    "error_beside_a_reply": body_of(OK[:-1] + b', "error": {"message": "a warning"}}'),
    "byte_order_mark": body_of(b"\xef\xbb\xbf" + OK),
    "not_utf8_elsewhere": body_of(OK[:-1] + b', "model": "\xff\xfe"}'),
    "duplicate_keys": body_of(b'{"choices": 3, ' + OK[1:]),
    "deep_but_readable": body_of(OK[:-1] + b', "x": ' + deep("1", 200).encode() + b"}"),
    "more_choices_than_asked_for": body_of({"choices": [{"message": {"content": GOOD}}] * 2000}),
    "gzip": body_of(gzip.compress(OK), Content_Encoding="gzip"),
    "deflate": body_of(zlib.compress(OK), Content_Encoding="deflate"),
    "a_cookie_of_nonsense": wire(http(OK, b'Set-Cookie: a=\x80; expires="x"; max-age=' + b"9" * 5000)),
    "headers_that_are_not_ascii": wire(http(OK, b"X-Odd: \xff\xfe\x80", b"Date: \xe4")),
    "500_headers": wire(http(OK, *(b"X-%d: y" % i for i in range(500)))),
    "content_type_is_html": body_of(OK, Content_Type="text/html; charset=\xff"),
    "information_first": wire(b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + http(OK)),
    "no_reason_phrase": wire(http(OK, line=b"HTTP/1.1 200")),
    "status_201": wire(http(OK, line=b"HTTP/1.1 201 Created")),
    "longer_than_its_content_length": wire(http(OK) + b"GARBAGE" * 100),
}  # fmt: skip


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


# --- one request that is not served ----------------------------------------------------------------------------------

UNSCORED: dict[str, dict[str, Misbehaviour]] = {
    "refused": {
        "openai": error(400, "Invalid prompt: this one was flagged under our usage policy.", code="invalid_prompt"),
        "openai_patterns": error(400, "There is an issue with repetitive patterns", code="invalid_prompt"),
        "openai_safety": error(400, "Your request was rejected as a result of our safety system."),
        "azure": error(
            400, "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"},
        ),
        "anthropic": error(400, "Output blocked by content filtering policy", type="invalid_request_error"),
        "gemini": plain(400, [{"error": {"code": 400, "message": "Prompt blocked", "status": "PROHIBITED_CONTENT"}}]),
        "bedrock": plain(400, {"message": "The generated text has been blocked by our content filters."}),
        "dashscope": error(400, "Input data may contain inappropriate content.", code="data_inspection_failed"),
        "deepseek": error(400, "Content Exists Risk", type="invalid_request_error"),
        "moonshot": error(400, "The request was rejected because it was considered high risk", type="content_filter"),
        "openrouter": error(
            403, 'openai/gpt requires moderation on OpenAI. Your input was flagged for "violence".',
            code=403, metadata={"reasons": ["violence"], "flagged_input": "two FLAGME"},
        ),
        "xai": plain(403, {"code": "denied", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK"}),
        "mistral": plain(403, {"message": "Prompt blocked by guardrails"}),
        "detail": plain(422, {"detail": "The input was flagged as unsafe by our moderation"}),
        "stepfun": error(451, "The content you provided or machine outputted is blocked."),
        "in_chinese": error(400, "输入内容包含敏感信息", code="1301"),
        "no_known_words": error(400, "Something about this one is odd."),
        "no_choices": body_of({"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 0}}),
        "choices_are_null": body_of({"choices": None, "base_resp": {"status_code": 1026}}),
        "no_message": body_of({"choices": [{"index": 0, "finish_reason": "content_filter: PROHIBITED_CONTENT"}]}),
        "message_is_a_list": body_of({"choices": [{"message": []}]}),
        "choice_is_null": body_of({"choices": [None]}),
        "filtered": choice(finish_reason="content_filter"),
        "filtered_for_a_reason": choice(finish_reason="SAFETY"),
        "refusal": message(content=None, refusal="I cannot help with that."),
        "an_error_inside": body_of({"error": {"code": 400, "message": "blocked", "type": "content_filter"}}),
    },
    "too_long": {
        "openai": error(400, "This model's maximum context length is 4096 tokens", code="context_length_exceeded"),
        "anthropic": error(400, "prompt is too long: 208310 tokens > 200000 maximum"),
        "anthropic_sum": error(400, "input length and `max_tokens` exceed context limit: 8000 + 4096 > 8192"),
        "bedrock": plain(400, {"message": "Input is too long for requested model."}),
        "gemini": error(400, "The input token count (9000) exceeds the maximum number of tokens allowed (8192)."),
        "cohere": plain(400, {"message": "too many tokens: the total number of tokens cannot exceed 4081"}),
        "mistral": error(400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"),
        "vllm": error(400, "The decoder prompt (length 9000) is longer than the maximum model length of 1024"),
        "sglang": error(400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
        "tgi": plain(422, {"error": "Input validation error: `inputs` must have less than 4096 tokens. Given: 9000"}),
        "llama_cpp": error(500, "the request exceeds the available context size, try increasing it"),
        "dashscope": error(400, "Range of input length should be [1, 30720]"),
        "characters": error(400, "Invalid 'messages[0].content': string too long.", code="string_above_max_length"),
        "the_models_maximum": error(400, "Requested token count exceeds the model's maximum"),
        "nginx": plain(413, "<html><title>413 Request Entity Too Large</title></html>"),
        "an_error_inside": body_of({"error": {"message": "too long", "code": "context_length_exceeded"}}),
    },
    "too_large": {
        "content": message(content="a" * 5_000_000),
        "content_within_the_body": message(content="a" * 30_000),
        "another_field": message(content=GOOD, reasoning="a" * 5_000_000),
        "a_million_choices": body_of(b'{"choices": [' + b"{}," * 10**6 + b"{}]}"),
        "gzip_bomb": body_of(BOMB, Content_Encoding="gzip"),
        "deflate_bomb": body_of(zlib.compress(b"\0" * 2**26), Content_Encoding="deflate"),
    },
}  # fmt: skip


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


# --- what ends the run -----------------------------------------------------------------------------------------------

SLOW = {"timeout_s": 0.4, "max_attempts": 1}
FAILURES: dict[str, tuple[Misbehaviour, str]] = {
    "html": (body_of("<html>\n<body>Welcome \x1b[31m to the gateway</body></html>"), "not JSON: .*Welcome"),
    "events": (body_of(b"data: {}\n\n", Content_Type="text/event-stream"), "a stream of events"),
    "empty": (body_of(b""), "the answer is empty"),
    "no_content": (wire(b"HTTP/1.1 204 No Content\r\n\r\n"), "the answer is empty"),
    "deep": (body_of(deep("1")), "not JSON"),
    "deep_error": (plain(500, deep('"x"')), "500 "),
    "nothing_of_use": (body_of({"id": 1}), "no choices"),
    "choices_are_text": (body_of({"choices": "GOOD"}), "no choices"),
    "broken_off": (choice(finish_reason="error"), "aborted the answer"),
    "error_inside": (body_of({"error": {"message": "\x1b[2J" + "lost \r\n" * 900}}), "no choices: .*lost lost"),
    "error_is_text": (body_of({"error": "over\x07loaded"}), "no choices: over loaded"),
    "error_of_odd_types": (body_of({"error": {"message": HUGE, "code": [], "type": {"a": [None]}}}), "no choices"),
    "wrong_key_inside": (
        body_of({"error": {"code": 401, "message": f"no such key {KEY}"}}),
        r"401: no such key \*\*\*",
    ),
    "wrong_key": (error(401, f"Incorrect API key provided: {KEY[:8]}*****.", code="invalid_api_key"), "valid key"),
    "no_rights": (error(403, "Your access was terminated due to violation of our policies"), "valid key"),
    "no_country": (error(403, "Country, region, or territory not supported"), "valid key"),
    "a_firewall": (plain(403, "<html>Sorry, your request was blocked</html>"), "valid key"),
    "no_credit": (error(400, "Your credit balance is too low to access the API"), "credit balance"),
    "no_money": (error(429, "You exceeded your current quota", code="insufficient_quota"), "429: You exceeded"),
    "redirect": (wire(http(b"", b"Location: http://[bad", line=b"HTTP/1.1 307 Elsewhere")), "redirects are not foll"),
    "a_filter_that_is_broken": (error(503, "The content filter is unavailable"), "503 The content filter"),
    "teapot": (wire(http(b"", line=b"HTTP/1.1 418 ")), "418: I'm a Teapot"),
    "status_999": (wire(http(b"", line=b"HTTP/1.1 999 \x80\xff")), "999 "),
    "status_of_letters": (wire(b"HTTP/1.1 abc OK\r\n\r\n"), "RemoteProtocolError"),
    "no_http": (wire(b"SSH-2.0-OpenSSH_9.9\r\n"), "RemoteProtocolError"),
    "huge_header": (wire(http(OK, b"X-Long: " + b"y" * 300_000)), "RemoteProtocolError|ReadError"),
    "20000_headers": (wire(http(OK, *(b"X-%d: y" % i for i in range(20_000)))), "RemoteProtocolError|ReadError"),
    "header_without_colon": (wire(http(OK, b"X\x01")), "RemoteProtocolError"),
    "content_length_is_a_lie": (wire(http(OK).replace(b"Content-Length: ", b"Content-Length: 9")), "Protocol"),
    "content_length_is_text": (wire(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"), "Protocol"),
    "chunks_end_early": (wire(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"), "Protocol"),
    "chunk_of_no_size": (wire(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "Protocol"),
    "not_gzip": (body_of(OK, Content_Encoding="gzip"), "not what its encoding says"),
    "gzip_cut_off": (body_of(gzip.compress(OK)[:-30], Content_Encoding="gzip"), "not JSON"),
    "gzip_twice": (body_of(gzip.compress(gzip.compress(OK)), Content_Encoding="gzip, gzip"), "only gzip was asked"),
    "brotli": (body_of(OK, Content_Encoding="br"), "only gzip was asked"),
    "zstd": (body_of(OK, Content_Encoding="zstd\x80"), "only gzip was asked"),
    "wait_of_a_day": (status(429, "slow", retry_after="86400"), r"a wait of 86400 s"),
    "wait_of_10^300": (status(429, "slow", retry_after="1" + "0" * 300), "a wait of more than a week"),
    "wait_until_9999": (status(503, "slow", retry_after="Fri, 31 Dec 9999 23:59:59 GMT"), "a wait of more than a week"),
    "error_of_a_megabyte": (plain(500, {"error": {"message": "\0broken " * 150_000}}), "500 "),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_be_read_is_one_clean_sentence(
    server: EndpointServer, make: Callable[..., EndpointChat], name: str
) -> None:
    misbehaviour, words = FAILURES[name]
    serve(server, misbehaviour)
    with pytest.raises(EngineError, match=words) as e:
        make(max_attempts=1).reply(ASKS, models={})
    said = str(e.value)
    assert said.isprintable() and len(said) < 900
    assert KEY[:8] not in said
    assert not any("3" in body["messages"][0]["content"] for body in server.received)
    # What was received before is not paid for again.
    server.misbehaviours.clear()
    server.received.clear()
    server.misbehaviours.extend([lambda exchange, body: exchange.send(200, good(body))] * 2)
    make().reply(ASKS, models={})
    assert [body["messages"][0]["content"] for body in server.received] == [f"two {FLAG}", "three"]


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


@pytest.mark.parametrize("words", ["Your prompt was flagged: invalid_prompt", "no such thing"])
def test_a_server_that_refuses_all_ends_the_run_and_nothing_is_remembered(
    server: EndpointServer, make: Callable[..., EndpointChat], words: str
) -> None:
    for num_requests, num_sent in ((2, 2), (NUM_REFUSED + 20, NUM_REFUSED)):
        serve(server, error(400, words))
        with pytest.raises(EngineError, match=words) as e:
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
