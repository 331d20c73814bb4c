"""Checks of kind math: equality of final answers, and answers that no computer evaluates."""

import os
import time

import pytest

from selfreward.checks import answer_classes, passes
from selfreward.checks.math_answers import compare, has_answer


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("42", "So there are 40 + 2, and the answer is 42."),
        (r"\frac{3}{4}", "It is 0.75"),
        ("3/4", r"Thus \boxed{\frac{6}{8}}."),
        ("1234", "it is 1,234 apples"),
        (r"x^2+2x+1", r"$(x+1)^2$"),
        (r"\{1,2\}", r"\boxed{\{2,1\}}"),
        ("(B)", r"\boxed{B}"),
        (r"\text{Paris}", r"\boxed{\text{Paris}}"),
        ("$42$", "42"),
        ("7", "first 3, then 5, at last \\boxed{7}, not 9"),
    ],
)
def test_equal_answers_pass(expected, text):
    assert passes({"kind": "math", "expected": expected}, text)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("42", "It is 41."),
        ("42", "I do not know."),
        ("42", "42, or perhaps 43"),
        (r"\frac{3}{4}", r"\boxed{\frac{4}{3}}"),
        ("7", ""),
        ("__import__('os')._exit(3)", "__import__('os')._exit(3)"),
    ],
)
def test_other_answers_do_not_pass(expected, text):
    assert not passes({"kind": "math", "expected": expected}, text)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9**9",
        r"\boxed{9^{9^{9^9}}}",
        r"$1000000!$",
        r"\boxed{" + "(" * 3000 + "1" + ")" * 3000 + "}",
        "\ud800\x00",
    ],
)
def test_an_answer_that_cannot_be_evaluated_fails_within_seconds_and_the_next_one_is_compared(text):
    started = time.monotonic()
    assert not passes({"kind": "math", "expected": "5"}, text)
    assert time.monotonic() - started < 60  # 2 s of CPU time
    assert passes({"kind": "math", "expected": "5"}, "5")


def test_the_child_of_a_forked_process_is_its_own():
    assert compare("1", "1") == "same"
    if (child := os.fork()) == 0:
        os._exit(0 if all(compare(str(n), str(n + n % 2)) == ("same", "different")[n % 2] for n in range(50)) else 1)
    mine = [compare(str(n), str(n + n % 2)) for n in range(50)]
    assert mine == ["same", "different"] * 25
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_answers_are_classed_by_their_first_occurrence():
    assert answer_classes(["4", "5", "four: 4", "x", "5.0"], "numeric") == [0, 1, 0, None, 1]
    assert answer_classes([r"$\frac12$", "x", "0.5", r"\boxed{9^{9^{9^9}}}", "2"], "math") == [0, None, 0, None, 1]
    assert answer_classes(["İstanbul. Answer: 4 then 5", "answer: 4", "4"], "numeric", marker="Answer:") == [0, 0, None]
    assert has_answer("4") and not has_answer("four")
