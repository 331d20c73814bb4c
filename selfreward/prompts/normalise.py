"""When two prompts count as the same text, and what their words are."""

import hashlib
import re
import unicodedata

from selfreward.records import Prompt

# Scripts written without spaces have one word per character here: else a whole Chinese sentence were one word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def turns_text(prompt: Prompt) -> str:
    """The conversation without its system turn, which many prompts of a run share."""
    return "\n".join(message.content for message in prompt.messages if message.role != "system")


def normal_text(text: str) -> str:
    """The form in which texts are compared: compatibility characters, case, white space and a final . ? ! do not count.

    Other punctuation counts: `2+2` and `2-2` are two prompts.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(".?! ") or folded


def conversation_key(prompt: Prompt) -> bytes:
    """16 bytes, equal for two prompts whose turns have the same roles and normal texts; a system turn counts."""
    text = "\x1e".join(f"{message.role}\x1f{normal_text(message.content)}" for message in prompt.messages)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def words(text: str) -> list[str]:
    """Runs of letters and digits, case folded, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
