"""What went wrong with a request: the exceptions, and the meaning of an error in a server's words.

Servers have no common list of error codes, so a refusal is recognised by its words: those of OpenAI, Azure, Anthropic,
Gemini, Bedrock, Mistral, DashScope, DeepSeek, OpenRouter, vLLM, SGLang, TGI, llama.cpp and others.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from selfreward.chats.endpoint_json import parse_json
from selfreward.readers import Unscored

# Enough to recognise an error; longer ones repeat the request.
_MAX_ABOUT = 4000
_MAX_STRINGS, _MAX_DEPTH = 100, 6
# Fields of an error that repeat the request.
_ECHOES = {"input", "flagged_input", "prompt", "messages", "body", "request", "ctx"}


class LostAnswer(Exception):
    """No usable answer arrived, and another attempt may succeed. `paid`: the request may have been charged."""

    def __init__(self, cause: str, *, paid: bool, retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.paid = paid
        self.retry_after_s = retry_after_s


class Garbled(LostAnswer):
    """An answer with the status of a success that holds no reply. If other requests are served, it may be the prompt's
    fault."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, paid=True)


class Refused(Exception):
    """The server refuses this request, and another attempt would not help. `paid`: it may have been charged."""

    def __init__(self, status: int, report: "ErrorReport", *, words: str = "", paid: bool = False) -> None:
        super().__init__(f"{status}: {words or report.words}")
        self.status = status
        self.report = report
        self.paid = paid


class TooLarge(Exception):
    """The body of a reply is larger than any reply to this request can be."""


@dataclass(frozen=True)
class ErrorReport:
    """An error of a server.

    `words` is its message. `about` is all of its texts (message, codes, types) in lower case; empty when unreadable.
    `named` are the parameters of the request that it names as the cause.
    """

    words: str
    about: str = ""
    named: frozenset[str] = frozenset()


def error_report(text: str) -> ErrorReport:
    """Return the error in the body of an answer; a page of HTML has words, and is about nothing."""
    try:
        answer = parse_json(text)
    except ValueError:
        return ErrorReport(text, "" if text.lstrip().startswith("<") else text[:_MAX_ABOUT].lower())
    return error_in(answer)


def error_in(answer: Any) -> ErrorReport:
    """Return the error in a JSON value: {"error": {...}}, {"detail": [...]}, {"message": ...}, a list of these."""
    if isinstance(answer, list) and answer:
        answer = answer[0]
    error = (answer.get("error") or answer) if isinstance(answer, Mapping) else answer
    texts = list(islice(_strings(error), _MAX_STRINGS))
    words = next((error[key] for key in ("message", "detail", "msg") if _is_text(error, key)), " ".join(texts))
    return ErrorReport(words, " ".join(texts)[:_MAX_ABOUT].lower(), frozenset(_named(error)))


def _is_text(error: Any, key: str) -> bool:
    return isinstance(error, Mapping) and isinstance(error.get(key), str) and bool(error[key].strip())


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < _MAX_DEPTH and isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _ECHOES:
                yield from _strings(inner, depth + 1)
    elif depth < _MAX_DEPTH and isinstance(value, list):
        for inner in value:
            yield from _strings(inner, depth + 1)


def _named(error: Any) -> Iterator[str]:
    """Yield the parameter of OpenAI's form, and those of pydantic's, {"detail": [{"loc": ["body", "seed"]}]}."""
    if not isinstance(error, Mapping):
        return
    if isinstance(error.get("param"), str):
        yield error["param"]
    details = error.get("detail")
    for detail in details[:_MAX_STRINGS] if isinstance(details, list) else ():
        place = detail.get("loc") if isinstance(detail, Mapping) else None
        yield from (part for part in place if isinstance(part, str)) if isinstance(place, list) else ()


_PROMPT = r"\b(prompt|input|request|message|conversation|content|text|string|query|payload|sequence)s?\b"
_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size|limit)|max_model_len|maximum (model|input|prompt|sequence|context) length"
    rf"|reduce the length|{_PROMPT}[^.]{{0,40}}\b(too (long|large|big)|longer than)|string_above_max_length"
    r"|exceed[^.]{0,80}\bcontext\b|range of input length|too many (input |prompt |total )?tokens"
    r"|prompt 超长|(输入|文本|上下文)[^。]{0,20}(过长|超过|超出)"
)
# Only with a status that says that the request is at fault: a server that is busy also speaks of limits.
_ALSO_TOO_LONG = re.compile(
    r"exceed[^.]{0,80}\b(tokens?|length|limit|maximum|max)\b|\b(tokens?|length|size)\b[^.]{0,80}\bexceed"
    r"|must have less than \d+ tokens|\binputs?\W{0,2} tokens?\b[^.]{0,80}\bmust be\b|token limit"
    r"|\btokens\b[^.]{0,60}\bsupports (up to )?\d"
    r"|max(imum)? (input )?tokens\b"
)
_RATE = re.compile(r"rate.?limit|per (minute|second|day|hour)|\b[tr]p[md]\b|quota|concurren")
_BLOCKED = re.compile(
    r"content[ _-]?(filter|policy|moderation|management|exists risk|safety|security|violat)|contentfilter"
    r"|responsible[ _]?ai|moderat(ion|ed)|data_?inspection|guardrail|prohibited[ _]content|blocklist|block_?reason"
    r"|safety[ _](system|setting|filter|check|polic|guideline|reason|rating)|usage (polic|guideline)"
    r"|invalid_prompt|repetitive patterns|new_sensitive|sensitive_words|cyber_policy|违规|敏感"
    rf"|{_PROMPT}[^.]{{0,60}}\b(flagged|blocked|unsafe|sensitive|inappropriate|harmful|prohibited|censored|high.risk)\b"
    rf"|(output|response|completion)s?\b[^.]{{0,60}}\b(flagged|blocked|filtered|unsafe|sensitive|censored)\b"
    rf"|{_PROMPT}[^.]{{0,60}}\bviolat|\b(sensitive|inappropriate|harmful|unsafe|offensive|toxic)\b[^.]{{0,40}}{_PROMPT}"
)
# The user of the server is refused, and not this request.
_ACCOUNT = re.compile(
    r"\b(your (account|access|organi[sz]ation|project|key|subscription|plan)|api[ _-]?key|billing|credit balance"
    r"|insufficient (credit|balance|fund|quota)\w*|quota|unsupported_country\w*|region|country|permissions?"
    r"|terminated|suspended|deactivated|banned|not authori[sz]ed|unauthori[sz]ed|forbidden)\b"
)
# These refuse the user, name what does not exist, or may pass.
_NEVER_ABOUT_THE_PROMPT = (0, 401, 402, 404, 405, 407, 408, 425, 429)


def skipped_reason(refusal: Refused) -> Unscored | None:
    """Return the reason why this request alone is not served; None when the server does not name its text."""
    status = refusal.status
    if status == 413:
        return Unscored.TOO_LONG
    if status in _NEVER_ABOUT_THE_PROMPT or 300 <= status < 400 or is_about_the_account(refusal):
        return None
    if _is_too_long(refusal):
        return Unscored.TOO_LONG
    # A server that is broken may say that its filter is.
    is_blocked = status == 451 or (status < 500 and _BLOCKED.search(refusal.report.about))
    return Unscored.REFUSED if is_blocked else None


def _is_too_long(refusal: Refused) -> bool:
    about, status = refusal.report.about, refusal.status
    if status == 403 or _RATE.search(about):
        return False
    return bool(_TOO_LONG.search(about) or (status in (200, 400, 422) and _ALSO_TOO_LONG.search(about)))


def is_about_the_account(refusal: Refused) -> bool:
    """Return whether the key, its credit or its rights are refused; an explicit code of a blocked prompt is not."""
    about = refusal.report.about
    return bool(_ACCOUNT.search(about)) and not re.search(r"\binvalid_prompt\b|\bcontent_filter\b", about)


def may_be_about_the_prompt(refusal: Refused) -> bool:
    """Return whether a refusal without a known reason may concern this request alone."""
    return refusal.status in (400, 422) and not is_about_the_account(refusal)
