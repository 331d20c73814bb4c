"""The part of a thinking model's text that is shown to judges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward.readers import without_reasoning

HARMONY = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Paris."

# (what the model wrote, what is shown)
TEXTS = [
    ("Paris.", "Paris."),
    ("  Paris.\n", "Paris."),
    ("", ""),
    ("<think>hm</think>Paris.", "Paris."),
    ("<think>\nhm\n</think>\n\nParis.", "Paris."),
    ("\n<think>\n\n</think>\n\nParis.", "Paris."),
    ("\ufeff<think>hm</think>Paris.", "Paris."),
    ("<THINKING>hm</THINKING>\nParis.", "Paris."),
    ("[THINK]hm[/THINK]Paris.", "Paris."),
    ("<seed:think>hm</seed:think>Paris.", "Paris."),
    ("◁think▷hm◁/think▷Paris.", "Paris."),
    ("<|channel>thought\nhm<channel|>Paris.", "Paris."),
    (HARMONY, "Paris."),
    ("analysisThe user asks.assistantcommentaryhm.assistantfinalParis.", "Paris."),
    # Half open: the chat template wrote the opening tag, or the token limit took the closing one.
    ("hm\n</think>\n\nParis.", "Paris."),
    ("hm, <b>bold</b> and x < 3\n</think>\n\nParis.", "Paris."),
    ("hm</think>Paris.", "Paris."),
    ("</think>\n\nParis.", "Paris."),
    ("<think>hm", ""),
    ("<think>", ""),
    ("<think>hm</think>", ""),
    ("hm</think>", ""),
    ("analysisThe user asks", ""),
    ("<|channel|>analysis<|message|>hm", ""),
    # Twice, and one kind inside another.
    ("<think>a</think>\n<think>b</think>\nParis.", "Paris."),
    ("<think>a</think>\n<reflection>b</reflection>\nParis.", "Paris."),
    ("<think>a</think>\n<think>b", ""),
    ("<think>it closes with </reflection> here</think>Paris.", "Paris."),
    ("<think>a <think> b</think>Paris.", "Paris."),
    # Tags that are part of the response.
    ("Put it between <think> and </think>.", "Put it between <think> and </think>."),
    ("The tag `</think>` ends it.", "The tag `</think>` ends it."),
    ("The </think> tag ends it.", "The </think> tag ends it."),
    ("End it with </think>.", "End it with </think>."),
    ("<think>hm</think>The closing tag is </think>.", "The closing tag is </think>."),
    ("<think>The tag `</think>` ends it.</think>Paris.", "Paris."),
    ("Paris. <think>or not?</think> Yes.", "Paris. <think>or not?</think> Yes."),
    ("I think: Paris.", "I think: Paris."),
    ("<thinker>Paris.</thinker>", "<thinker>Paris.</thinker>"),
    ("analysis of the plays", "analysis of the plays"),
    ("[think] Paris. [/think]", "[think] Paris. [/think]"),
]


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_the_part_of_a_text_that_is_shown(text: str, shown: str) -> None:
    assert without_reasoning(text) == shown


@given(thought=st.text(max_size=60), said=st.text(alphabet=st.characters(blacklist_characters="<◁["), max_size=60))
def test_text_after_reasoning_is_shown_completely(thought: str, said: str) -> None:
    assert without_reasoning(f"<think>{thought}\n</think>\n{said}") == said.strip()


@pytest.mark.parametrize(
    "piece", ["<think></think>", "<think>", "</think>", "<think>a</think> ", "analysisA", "\u200b"]
)
@pytest.mark.timeout(20)
def test_reasoning_of_any_length_is_removed_in_linear_time(piece: str) -> None:
    without_reasoning(piece * 50_000)
    without_reasoning("a " + piece * 50_000)
