"""One exchange with an OpenAI-compatible server; error messages never contain the key."""

import email.utils
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from selfreward.chats.endpoint_wire import LostAnswer, Refused
from selfreward.errors import RecipeError
from selfreward.recipe import EndpointSection

if TYPE_CHECKING:
    import httpx

_PATH = "/chat/completions"
_MAX_WORDS = 300
# When a server requests a longer wait, the run stops with an error instead.
_MAX_RETRY_AFTER_S = 600.0
# A shorter key may be a word in a model's text: it is hidden in errors, but not in replies.
_MIN_KEY_IN_TEXT = 8
_HIDDEN = "***"


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


class Connection:
    """An HTTP connection, shared by threads. `where` names the endpoint in errors."""

    def __init__(self, name: str, section: EndpointSection) -> None:
        import httpx

        self.url = chat_url(section)
        self.where = f"models.{name} ({section.endpoint})"
        self._timeout_s = section.timeout_s
        self._key = _key(name, section)
        self._hidden = _key_pattern(self._key)
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {self._key or 'none'}", "Content-Type": "application/json"},
            timeout=section.timeout_s,
            # Idle connections are closed before the server closes them, which would look like a lost answer.
            limits=httpx.Limits(max_connections=section.max_concurrency, keepalive_expiry=3.0),
        )

    def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the server's answer, a JSON object. Raises LostAnswer and Refused."""
        import httpx

        try:
            response = self._exchange(json.dumps(body).encode())
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise Refused(0, self.clean(str(error)), about="") from None
        except httpx.RequestError as error:
            # Without a connection nothing was sent; otherwise the server may have processed the request.
            unconnected = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            words = f"no answer within {self._timeout_s:g} s" if isinstance(error, httpx.TimeoutException) else error
            raise LostAnswer(f"{type(error).__name__}: {self.clean(str(words))}", paid=not unconnected) from None
        if not response.is_success:
            raise self._error_of(response)
        return self._read(response.content)

    def close(self) -> None:
        self._http.close()

    def clean(self, words: str) -> str:
        """Return a message on one line, short, without control characters and without the key."""
        if self._hidden:
            words = self._hidden.sub(_HIDDEN, words)
        words = " ".join("".join(char if char.isprintable() else " " for char in words).split())
        return words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + " ..."

    def _exchange(self, content: bytes) -> "httpx.Response":
        """Send a request with a time-out for the complete answer; httpx's time-out is per piece of it."""
        import httpx

        deadline = time.monotonic() + self._timeout_s
        with self._http.stream("POST", self.url, content=content) as response:
            raw = bytearray()
            for piece in response.iter_bytes():
                raw += piece
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("")
        return httpx.Response(response.status_code, headers=_used_headers(response.headers), content=bytes(raw))

    def _read(self, raw: bytes) -> dict[str, Any]:
        text = raw.decode("utf-8-sig", "replace")
        if len(self._key) >= _MIN_KEY_IN_TEXT:
            text = text.replace(self._key, _HIDDEN)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            raise LostAnswer(f"the answer is not JSON: {self.clean(text[:200])!r}", paid=True) from None
        if not isinstance(answer, dict):
            raise LostAnswer("the answer is not a JSON object", paid=True)
        return answer

    def _error_of(self, response: "httpx.Response") -> LostAnswer | Refused:
        words, about = _error_message(response.content.decode("utf-8", "replace"))
        words = self.clean(words) or response.reason_phrase
        status = response.status_code
        may_pass = status in (408, 409, 429) or status >= 500
        wait_s = _retry_after_s(response.headers)
        if not may_pass or "insufficient_quota" in about or (wait_s or 0) > _MAX_RETRY_AFTER_S:
            wait = f" (it requests a wait of {wait_s:.0f} s)" if wait_s else ""
            return Refused(status, words + wait, about=about)
        return LostAnswer(f"{status} {words}", paid=False, retry_after_s=wait_s)


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


def _used_headers(headers: "httpx.Headers") -> dict[str, str]:
    """Return only the headers that are used; headers on the encoding do not apply to a decoded body."""
    return {name: headers[name] for name in ("retry-after", "retry-after-ms") if name in headers}


def _error_message(text: str) -> tuple[str, str]:
    """Return the message of an error, as written by OpenAI, FastAPI and others, and the message with its codes."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return text, text
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if not isinstance(error, dict):
        return str(error), text
    message = error.get("message") or error.get("detail") or error
    if not isinstance(message, str):
        message = json.dumps(message, ensure_ascii=False)
    codes = [str(error.get(key)) for key in ("code", "type", "param") if error.get(key)]
    return message, " ".join([message, *codes])


def _retry_after_s(headers: "httpx.Headers") -> float | None:
    """Return seconds, at least 0; None when the server gives no readable value."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(float(milliseconds) / 1000, 0.0)
        return None if value is None else max(float(value), 0.0)
    except ValueError:
        try:
            return max(email.utils.parsedate_to_datetime(str(value)).timestamp() - time.time(), 0.0)
        except ValueError:
            return None


def model_id(section: EndpointSection) -> str:
    return f"endpoint:{urlsplit(section.endpoint).netloc}/{section.model}"
