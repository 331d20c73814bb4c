"""Cleaning of a judge's text: everything that is not its own statement is blanked, which preserves positions.

Blanked are reasoning, quotations in the marks of several languages, code, quoted lines, a line that the judge
attributes to the response ("It ends with:") or introduces as the required format, and repeated prompt blocks.
"""

import re

from selfreward.readers.normalised_text import BLANK, normalised
from selfreward.readers.other_texts import is_hypothetical
from selfreward.readers.reasoning import reasoning_spans

# A verdict is at the end of a text, or at its beginning, where also its reasoning begins. The characters that are read:
MAX_BEGINNING, MAX_END = 4_096, 20_480
MAX_END_WITH_REASONING = 262_144


def said_text(text: str) -> str:
    """Return what the judge says in `text`: normalised, its reasoning blanked, and only its beginning and its end if it
    is longer than both."""
    return _bounded(_without_reasoning(normalised(_bounded(text, MAX_END_WITH_REASONING))), MAX_END)


def _bounded(text: str, max_end: int) -> str:
    # The character between the two is neither a space nor the end of a sentence.
    return text if len(text) <= MAX_BEGINNING + max_end else f"{text[:MAX_BEGINNING]}\ufffd{text[-max_end:]}"


def _without_reasoning(text: str) -> str:
    """Blank the reasoning in `text`; the text after it begins as on a new line."""
    pieces, done = [], 0
    for start, end in reasoning_spans(text):
        pieces += [text[done:start], BLANK, "\n"]
        done = end
    return "".join((*pieces, text[done:]))


def cleaned_text(text: str) -> str:
    """Blank the quotations in `text`, which is normalised and without reasoning. Repeated blocks remain."""
    text = _QUOTED_VALUE.sub(lambda found: f"{found[1]} {found[3]} ", text)
    for pattern in _QUOTATIONS:
        text = pattern.sub(_blank, text)
    text = _blank_tagged(text, _QUOTING_TAG, to_the_end=False)
    text = _SHAPED_QUOTATION.sub(_blank, text)
    # The remaining marks are paired across lines only if their number is even (it is odd after an inch sign, for
    # example).
    text = (_ONE_LINE_QUOTATION if text.count('"') % 2 else _QUOTATION).sub(_blank, text)
    return _blank_introduced(text)


def blank_shaped_quotations(text: str) -> str:
    """Blank quotations except those in straight marks, for JSON, which itself uses straight marks."""
    return _blank_tagged(_SHAPED_MARKS.sub(_blank, text), _QUOTING_TAG, to_the_end=False)


def blank_repeated_blocks(text: str) -> str:
    """Blank repeated prompt blocks in `text`."""
    return _blank_tagged(text, _BLOCK_TAG, to_the_end=True)


# `Score: "4"` and `The better response is "Response A"`: these marks are not quotations.
_QUOTED_VALUE = re.compile(
    r"([:=]|\bis)(?=[ \t*_]{1,8}[\"'`“‘])[ \t*_]{1,8}([\"'`“‘])"
    r"((?:[a-z]{1,9} )?(?-i:[A-Z])|[0-9]{1,3}(?:\.[0-9]{1,3})?(?:/[0-9]{1,3})?)[\"'`”’]",
    re.IGNORECASE,
)
_SHAPED_MARKS = re.compile(r"“[^“”]*”|«[^«»]*»|‹[^‹›]*›|„[^„“”]*[“”]|「[^「」]*」|『[^『』]*』")
_QUOTATIONS = (
    re.compile(r"```[^`\n]+```"),
    re.compile(r"^[ \t]{0,8}(```|~~~).*?(?:^[ \t]{0,8}\1|\Z)", re.DOTALL | re.MULTILINE),
    re.compile(r"^[ \t]{0,3}>.*$", re.MULTILINE),
    _SHAPED_MARKS,
    re.compile(r"`[^`\n]+`"),
    re.compile(r"~~[^~\n]+~~"),  # struck out
    re.compile(r"(?<!\w)['‘][^'‘’\n]+['’](?!\w)"),
)
_SHAPED_QUOTATION = re.compile(r'(?<![^\s(\[{*_—–-])"(?=[^\s"])[^"]*(?<=\S)"(?!\w)')
_ONE_LINE_QUOTATION = re.compile(r'"[^"\n]*"')
_QUOTATION = re.compile(r'"[^"]*"')
_QUOTING_TAG = re.compile(r"<(/?)(?:blockquote|quote|q|pre|code|s|del|strike)>", re.IGNORECASE)
_BLOCK_TAG = re.compile(
    r"<(/?)(?:user|assistant|system|prompt|reference|own_response|(?:response|judgment)\w{0,2})(?:-[0-9a-f]{6})?>",
    re.IGNORECASE,
)
_INTRODUCED = re.compile(r"(?::|(?:the following|as follows)\.)[ \t*_]{0,8}\n\s{0,8}(?=([^\n]+))", re.IGNORECASE)
# The same in other languages: who says it, or "the form is", or "as follows".
_ATTRIBUTION_ELSEWHERE = (
    r"(?:回答|回复|答案|响应|文本|用户|它|応答|テキスト|응답|답변|텍스트)[^\n。.!?]{0,60}"
    r"(?:写道|说|說|声称|声明|结尾|結尾|结束|包含|要求|写着|書|述べ|主張|終わ|含|말|주장|끝|포함)"
    r"|(?:格式|形式|模板|テンプレート|형식)(?:是|为|如下|は)?"
    r"|\b(?:antwort|sie|es|text|réponse|elle|il|texte|respuesta|resposta|risposta|texto|testo|ответ|он|текст)\b.*"
    r"\b(?:sagt|endet|behauptet|schreibt|enthält|lautet|verlangt|dit|finit|termine|prétend|écrit|contient|affirme"
    r"|demande|dice|termina|afirma|escribe|contiene|pide|diz|escreve|contém|pede|finisce|scrive|chiede|говорит"
    r"|заканчивается|утверждает|пишет|содержит|просит)\b"
    r"|\b(?:format|formato|forma|формат)[ \t](?:ist|lautet|est|es|é|è)\Z|\b(?:zum Beispiel|par exemple|por ejemplo"
    r"|por exemplo|per esempio|например)\Z"
)
_ATTRIBUTION = re.compile(
    r"\b(?:it|response|assistant|answer|text|user|prompt|author)\b"
    r"(?:.*\b(?:says?|said|claims?|ends?|writes?|wrote|states?|reads?|concludes?|quotes?|adds?)\b"
    r"|.*\b(?:contain|include|insert|append|demand|request|ask)(?:s|ed)?\b[^.!?,;]*\Z)"
    r"|\b(?:form|format|template|example)\b[^.!?,;]*\b(?:is|was|be|like|as follows|the following)\Z"
    r"|\bfor example\Z|\b(?:asked|told|instructed|required) to\b[^.!?,;]*\Z"
    rf"|{_ATTRIBUTION_ELSEWHERE}",
    re.IGNORECASE,
)


def is_attributed(text: str, end: int) -> bool:
    """Whether the line up to its colon at `end` is an attribution such as "The response says:" or "The form is:", or
    introduces what another text would get: "An ideal response would be graded as:"."""
    line = max(text.rfind("\n", 0, end) + 1, end - 120)
    return _ATTRIBUTION.search(text, line, end) is not None or is_hypothetical(text, line, end)


def _blank_introduced(text: str) -> str:
    """Blank each line that follows an attribution."""
    pieces, done = [], 0
    for found in _INTRODUCED.finditer(text):
        if is_attributed(text, found.start()):
            pieces += [text[done : found.start(1)], _blanked(found[1])]
            done = found.end(1)
    return "".join((*pieces, text[done:]))


def _blank(match: re.Match[str]) -> str:
    return _blanked(match.group())


def _blanked(text: str) -> str:
    return re.sub(r"[^\n]", BLANK, text)


def _blank_tagged(text: str, tag: re.Pattern[str], *, to_the_end: bool) -> str:
    """Blank from each outermost opening tag to its closing tag, or with `to_the_end` to the end if it is never
    closed."""
    pieces: list[str] = []
    depth, done = 0, 0  # everything before `done` is in `pieces`
    for found in tag.finditer(text):
        if not found[1]:
            if not depth:
                pieces.append(text[done : found.start()])
                done = found.start()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                pieces.append(_blanked(text[done : found.end()]))
                done = found.end()
    pieces.append(_blanked(text[done:]) if depth and to_the_end else text[done:])
    return "".join(pieces)
