"""Answers of hostile servers, by what they must come to: READ is read, UNSCORED has a reason, FAILURES end the run."""

import gzip
import json
import zlib
from typing import Any

from fakes.endpoint_server import Body, Exchange, Misbehaviour, answer_to, status

KEY = "sk-test-0123456789-abcdef"
FLAG = "FLAGME"
GOOD = "It is right.\nScore: 4"
HUGE = int("9" * 400)


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
        "text_generation": error(400, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"),
        "supports": error(400, "Prompt has 9000 tokens but model supports 8192"),
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
