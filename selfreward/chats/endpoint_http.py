"""One exchange with an OpenAI-compatible server; error messages never contain the key.

Whatever the server sends is bounded: its body while it is read and decompressed, the headers by the HTTP library, and
the time of the whole exchange by one deadline, however slowly single bytes arrive.
"""

import http.cookiejar
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import responses
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from selfreward.chats.endpoint_body import ACCEPTED_ENCODINGS, read_body
from selfreward.chats.endpoint_json import parse_json
from selfreward.chats.endpoint_loop import BackgroundLoop
from selfreward.chats.endpoint_refusals import Garbled, LostAnswer, Refused, error_in, error_report, skipped_reason
from selfreward.chats.endpoint_wait import retry_after_s
from selfreward.errors import RecipeError
from selfreward.recipe import EndpointSection

if TYPE_CHECKING:
    import httpx

_PATH = "/chat/completions"
_MAX_WORDS = 300
# An error is recognised by its beginning.
_MAX_ERROR_BYTES = 65_536
# When a server requests a longer wait, the run stops with an error instead.
_MAX_RETRY_AFTER_S = 600.0
# A shorter key may be a word in a model's text: it is hidden in errors, but not in replies.
_MIN_KEY_IN_TEXT = 8
_HIDDEN = "***"
_NO_MONEY = re.compile(r"insufficient[_ ](quota|balance|credit|fund)|billing_hard_limit|exceeded your current quota")


def chat_url(section: EndpointSection) -> str:
    return section.endpoint.rstrip("/").removesuffix(_PATH) + _PATH


class RateLimiter:
    """A rate limit of `per_minute` requests in any minute, evenly spaced over all threads; None for no limit."""

    def __init__(self, per_minute: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._next = clock()
        self._lock = threading.Lock()

    def wait_s(self) -> float:
        """Reserve the next free time slot and return the seconds until then.

        A token bucket of size one: with a larger one, a burst and the refill after it would exceed the limit.
        """
        with self._lock:
            now = self._clock()
            at = max(now, self._next)
            self._next = at + self._interval_s
        return at - now


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """An HTTP connection, shared by threads. `where` names the endpoint in errors."""

    def __init__(self, name: str, section: EndpointSection) -> None:
        import httpx

        self.url = chat_url(section)
        self.where = f"models.{name} ({section.endpoint})"
        self._timeout_s = section.timeout_s
        self._key = _key(name, section)
        self._hidden = _key_pattern(self._key)
        self._loop = BackgroundLoop()
        self._http = httpx.AsyncClient(
            headers={
                "Authorization": f"Bearer {self._key or 'none'}",
                "Content-Type": "application/json",
                "Accept-Encoding": ACCEPTED_ENCODINGS,
            },
            cookies=_NoCookies(),
            event_hooks={"response": [_forget_location]},
            timeout=None,  # one deadline for the whole exchange instead, see `_exchange`
            # Idle connections are closed before the server closes them, which would look like a lost answer.
            limits=httpx.Limits(max_connections=section.max_concurrency, keepalive_expiry=3.0),
        )

    def post(self, body: Mapping[str, Any], *, max_bytes: int) -> dict[str, Any]:
        """Return the server's answer, a JSON object of at most `max_bytes`. Raises LostAnswer, Refused and TooLarge."""
        import httpx

        sent: list[str] = []
        try:
            answer = self._loop.run(self._exchange(json.dumps(body).encode(), max_bytes=max_bytes, sent=sent))
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise Refused(0, error_report(f"{error}")) from None
        except TimeoutError:
            raise LostAnswer(f"no answer within {self._timeout_s:g} s", paid=bool(sent)) from None
        except (httpx.RequestError, httpx.StreamError, OSError, ValueError) as error:
            # Without a connection nothing was sent; otherwise the server may have processed the request.
            raise LostAnswer(f"{type(error).__name__}: {error}", paid=bool(sent)) from None
        if not 200 <= answer.status < 300:
            raise _error_of(answer)
        return _read(answer)

    def close(self) -> None:
        self._loop.run(self._http.aclose())
        self._loop.close()

    def clean(self, words: str) -> str:
        """Return a message on one line, short, without control characters and without the key."""
        if self._hidden:
            words = self._hidden.sub(_HIDDEN, words)
        words = words[: 20 * _MAX_WORDS]
        words = " ".join("".join(char if char.isprintable() else " " for char in words).split())
        return words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + " ..."

    def without_key(self, text: str) -> str:
        """Return a model's text without the key, if a server repeats it there."""
        return text.replace(self._key, _HIDDEN) if len(self._key) >= _MIN_KEY_IN_TEXT else text

    async def _exchange(self, content: bytes, *, max_bytes: int, sent: list[str]) -> _Answer:
        """Send a request and read the answer before the deadline. `sent` gets an entry when bytes leave."""
        import asyncio

        async def trace(event: str, _: Any) -> None:
            if ".send_request" in event:
                sent.append(event)

        async with (
            asyncio.timeout(self._timeout_s),
            self._http.stream("POST", self.url, content=content, extensions={"trace": trace}) as response,
        ):
            body = await read_body(
                response.aiter_raw(),
                encoding=response.headers.get("content-encoding", ""),
                max_bytes=max_bytes if response.is_success else _MAX_ERROR_BYTES,
                whole=response.is_success,
            )
            return _Answer(response.status_code, response.headers, body)


class _NoCookies(http.cookiejar.CookieJar):
    """A jar that stays empty: a server's cookies are neither parsed nor sent back."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass


async def _forget_location(response: "httpx.Response") -> None:
    """Redirects are never followed: the key would go elsewhere. httpx would parse the address all the same."""
    response.headers.pop("location", None)


def _read(answer: _Answer) -> dict[str, Any]:
    text = answer.body.decode("utf-8-sig", "replace")
    kind = answer.headers.get("content-type", "")[:100].partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        raise Refused(200, error_report("the answer is a stream of events, which was not requested"), paid=True)
    try:
        value = parse_json(text)
    except ValueError:
        raise Garbled(f"the answer is not JSON: {text[:200]!r}" if text else "the answer is empty") from None
    if not isinstance(value, dict):
        raise Garbled("the answer is not a JSON object")
    if value.get("error") and not value.get("choices"):
        raise _error_inside(value)
    return value


def _error_inside(value: Mapping[str, Any]) -> LostAnswer | Refused:
    """Return the error in an answer with status 200, as some gateways send it."""
    report = error_in(value)
    code = value["error"].get("code") if isinstance(value["error"], Mapping) else None
    status = code if type(code) is int and 400 <= code < 600 else 200
    refusal = Refused(status, report, paid=True)
    if skipped_reason(refusal) or (400 <= status < 500 and status not in _MAY_PASS) or _NO_MONEY.search(report.about):
        return refusal
    return LostAnswer(f"the answer has no choices: {report.words}", paid=True)


_MAY_PASS = (408, 409, 425, 429)


def _error_of(answer: _Answer) -> LostAnswer | Refused:
    report = error_report(answer.body.decode("utf-8-sig", "replace"))
    wait_s = retry_after_s(answer.headers)
    words = report.words if report.words.strip() else responses.get(answer.status, "no message")
    refusal = Refused(answer.status, report, words=words)
    if skipped_reason(refusal) or not (answer.status in _MAY_PASS or answer.status >= 500):
        return refusal
    if _NO_MONEY.search(report.about):
        return refusal
    if wait_s is not None and wait_s > _MAX_RETRY_AFTER_S:
        wait = f"{wait_s:.0f} s" if wait_s < 1e6 else "more than a week"
        return Refused(answer.status, report, words=f"{words[:_MAX_WORDS]} (it requests a wait of {wait})")
    return LostAnswer(f"{answer.status} {words}", paid=False, retry_after_s=wait_s)


def _key(name: str, section: EndpointSection) -> str:
    """Return the key from the environment; "" when the endpoint needs none. No message contains it."""
    variable = section.api_key_env
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise RecipeError(
            f"models.{name}.api_key_env: the environment variable {variable} is not set; it must contain the key of "
            f"{section.endpoint}; export it, or remove api_key_env for a server that needs no key"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise RecipeError(
            f"models.{name}.api_key_env: the value of {variable} is not a key; letters, digits and signs on one "
            "line are allowed; set it to the key alone"
        )
    return key


def _key_pattern(key: str) -> re.Pattern[str] | None:
    """Return a pattern for the key, and for its masked form in a server's messages: its first letters, then stars."""
    if not key:
        return None
    part = rf"|{re.escape(key[:6])}\S*" if len(key) >= 2 * 6 else ""
    return re.compile(re.escape(key) + part)


def model_id(section: EndpointSection) -> str:
    return f"endpoint:{urlsplit(section.endpoint).netloc}/{section.model}"
