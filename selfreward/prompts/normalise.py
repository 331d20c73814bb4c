"""Text normalisation for comparing prompts, and their words."""

import hashlib
import re
import unicodedata

from selfreward.records import TOOLS, Prompt

# In scripts written without spaces each character is a word here: otherwise a Chinese sentence would be one word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def turns_text(prompt: Prompt) -> str:
    """Return the conversation without its system turn and the tools on offer, which many prompts of a run share."""
    return "\n".join(message.content for message in prompt.messages if message.role not in ("system", TOOLS))


def normal_text(text: str) -> str:
    """Return the normalised text: compatibility characters, case, white space and a final . ? ! do not count.

    Other punctuation counts: `2+2` and `2-2` are two prompts.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(".?! ") or folded


def conversation_key(prompt: Prompt) -> bytes:
    """Return 16 bytes that are equal for prompts with the same roles and normal texts, system turn included."""
    text = "\x1e".join(f"{message.role}\x1f{normal_text(message.content)}" for message in prompt.messages)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def words(text: str) -> list[str]:
    """Return the runs of letters and digits, case folded, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
