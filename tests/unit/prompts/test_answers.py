"""Answers that become checks."""

from typing import Any

import pytest
from cases.rows import found_in, refusal

from selfreward.checks import KINDS, passes
from selfreward.prompts.answers import boxed

needs_math = pytest.mark.skipif("math" not in KINDS, reason="the check kind `math` does not exist yet")


def check_of(row: dict[str, Any], **columns: Any) -> Any:
    checks = found_in({"question": "How many?", **row}, **columns).prompt.checks
    return checks[0] if checks else None


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("72", 72), ("  1,234.5 ", 1234.5), ("$1,000", 1000), ("-3", -3), ("\u22123", -3), ("50%", 50), (".5", 0.5),
        (7, 7), (7.0, 7), (0.25, 0.25), ("She has 3 + 4 = <<3+4=7>>7 apples.\n#### 7", 7), ("so\n####1,080", 1080),
        ("12.", 12), ("9" * 40, int("9" * 40)),
    ],
)  # fmt: skip
def test_a_number_is_checked_as_one_without_being_asked(answer: Any, number: float) -> None:
    check = check_of({"answer": answer})
    assert check == {"kind": "numeric", "expected": number}
    assert passes(check, f"It is {answer if isinstance(answer, str) else repr(answer)}".replace("%", ""))


@pytest.mark.parametrize(
    "answer", ["Because it rains.", "3 of 4", "1.2.3", "", None, True, ["Paris", "paris"], {"a": 1}]
)
def test_another_answer_under_a_usual_name_is_no_check(answer: Any) -> None:
    found = found_in({"question": "Why?", "answer": answer})
    assert found.prompt.checks == ()
    assert found.prompt.reference == (answer if isinstance(answer, str) else "")


def test_a_named_answer_is_always_a_check() -> None:
    assert check_of({"label": "Paris"}, answer="label") == {"kind": "exact", "expected": "Paris"}
    assert check_of({"label": ["12"]}, answer="label") == {"kind": "numeric", "expected": 12}
    assert check_of({"label": "12"}, answer="label", answer_check="exact") == {"kind": "exact", "expected": "12"}
    assert found_in({"question": "x", "label": "Paris"}, answer="label").prompt.reference == ""
    for row in ({}, {"label": ""}, {"label": {"a": 1}}, {"label": ["a", "b"]}):
        assert refusal({"question": "x", **row}, answer="label").reason == "bad_answer"


def test_checks_of_the_row_come_first() -> None:
    row = {"prompt": "x", "checks": [{"kind": "punctuation:no_comma"}], "answer": "4"}
    assert [check["kind"] for check in found_in(row).prompt.checks] == ["punctuation:no_comma", "numeric"]
    as_text = {"prompt": "x", "checks": '[{"kind": "punctuation:no_comma"}]'}
    assert [check["kind"] for check in found_in(as_text).prompt.checks] == ["punctuation:no_comma"]


def test_the_ground_truth_of_verl_is_a_check() -> None:
    row = {"data_source": "gsm8k", "prompt": [{"role": "user", "content": "2+2?"}],
           "reward_model": {"style": "rule", "ground_truth": "4"}}  # fmt: skip
    found = found_in(row)
    assert found.prompt.checks == ({"kind": "numeric", "expected": 4},) and "reward_model" in found.used


@needs_math
def test_expressions_are_checked_as_mathematics() -> None:
    half = {"kind": "math", "expected": r"\frac{1}{2}"}
    assert check_of({"label": r"\frac{1}{2}"}, answer="label") == half
    problem = {"problem": "Half of 1?", "solution": r"It is $\boxed{\frac{1}{2}}$."}
    assert found_in(problem).prompt.checks == (half,)
    assert found_in({**problem, "answer": "x+1"}).prompt.checks == ({"kind": "math", "expected": "x+1"},)


def test_the_last_box_of_a_solution_is_its_answer() -> None:
    assert boxed(r"\boxed{1} and then \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert boxed(r"\boxed{never closed") == "" and boxed("}") == "" and boxed("") == ""
    number = found_in({"problem": "1+1?", "solution": r"\boxed{2}"}).prompt
    assert number.checks == ({"kind": "numeric", "expected": 2},) and number.reference == r"\boxed{2}"
