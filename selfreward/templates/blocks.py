"""Blocks that enclose untrusted text in a prompt, and that the text cannot close.

A block is `<name-code>`, a line break, the text, a line break, `</name-code>`. The code is a hash of the text, so the
same text always gives the same block. It is hashed again until it does not occur in the text, nor in the text as read
by a tokenizer that folds look-alike characters and drops invisible ones: no text can contain the closing tag of its own
block, not as tokens either. Since a code depends only on its own text, prompts that share a rubric and a conversation
have an identical prefix, as the engine's prefix cache requires.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from selfreward.errors import TemplateError
from selfreward.records import Message

# The forms that common tokenizers read as control tokens: <|im_end|>, <｜User｜>, <turn|>, </s>, <end_of_turn>,
# [INST], [|user|], <<SYS>>. A chat template does not escape them, so a response that spells one out would
# end the user's turn and write the verdict itself. A space after the bracket makes it plain text and keeps it readable.
_CONTROL_TOKEN = re.compile(
    r"<(?=[|｜])"
    r"|<(?=\w{1,40}[|｜]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|sep|cls|im_start|im_end|startoftext|endoftext|start_of_turn|end_of_turn"
    r"|start_of_image|end_of_image|seed:\w{1,40}|special_\d+|reserved_\d+)>)"
    r"|<(?=</?SYS>>)"
    r"|\[(?=\|)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|CLS|SEP|MASK|PAD|UNK)\])",
    re.IGNORECASE,
)
_CODE_LENGTH = 6


def plain(text: str) -> str:
    """Return the text as valid Unicode, with control tokens changed so that no tokenizer reads them as such."""
    return _CONTROL_TOKEN.sub(lambda bracket: bracket.group() + " ", encodable(text))


def encodable(text: str) -> str:
    """Replace lone surrogates, legal in JSON but not in UTF-8 and so not for tokenizers, by a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def code_of(text: str) -> str:
    """Return six hexadecimal digits that depend only on `text` and do not occur in it in any spelling."""
    folded = _folded(text)
    attempt = 0
    while True:
        code = hashlib.sha256(f"{attempt}\x1f{text}".encode()).hexdigest()[:_CODE_LENGTH]
        if code not in text and code not in folded:
            return code
        attempt += 1


class _Visible(dict[int, int | None]):
    """A table for `str.translate` without spaces, accents and invisible characters, filled as characters occur."""

    def __missing__(self, code: int) -> int | None:
        char = chr(code)
        self[code] = None if char.isspace() or unicodedata.category(char) in ("Cf", "Mn", "Cc") else code
        return self[code]


_VISIBLE = _Visible()


def _folded(text: str) -> str:
    """Return the text in its most normalised form: lower-case letters, no accents, spaces or invisible characters."""
    return unicodedata.normalize("NFKD", text).casefold().translate(_VISIBLE)


def block(name: str, text: str) -> str:
    """Return `text` between tags that it cannot close."""
    text = plain(text)
    return _tagged(name, text, code_of(text))


def conversation(messages: Sequence[Message]) -> str:
    """Return all turns, system prompt included, as one block each, named by role; all have one code.

    Raises TemplateError for an empty conversation and for a role that is not one lower-case word.
    """
    if not messages:
        raise TemplateError("templates: a conversation without messages; at least one is needed; check the prompt")
    turns = [(message.role, plain(message.content)) for message in messages]
    for role, _ in turns:
        if not re.fullmatch(r"[a-z_]+", role):
            raise TemplateError(
                f"templates: a message has the role {role!r}; roles are lower-case words such as system, user "
                "and assistant; correct the prompt"
            )
    code = code_of("\x1e".join(text for _, text in turns))
    return "\n".join(_tagged(role, text, code) for role, text in turns)


def _tagged(name: str, text: str, code: str) -> str:
    return f"<{name}-{code}>\n{text}\n</{name}-{code}>"
