"""A real HTTP server with a chat-completions API that can misbehave, for tests of the endpoint engine."""

import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Body = dict[str, Any]
Misbehaviour = Callable[["Exchange", Body], None]
TOKENS_PER_PROMPT, TOKENS_PER_CHOICE = 7, 5


def text_for(body: Mapping[str, Any], i: int = 0) -> str:
    """What the server writes as draw `i`: it depends only on what defines a draw."""
    return f"reply to {body['messages'][-1]['content']} with seed {body['seed'] + i}"


def answer_to(body: Body, *, num_choices: int | None = None, **choice: Any) -> Body:
    num_choices = body.get("n", 1) if num_choices is None else num_choices
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text_for(body, i)}, "finish_reason": "stop", **choice}
        for i in range(num_choices)
    ]
    usage = {"prompt_tokens": TOKENS_PER_PROMPT, "completion_tokens": TOKENS_PER_CHOICE * num_choices}
    return {"object": "chat.completion", "choices": choices, "usage": usage}


class EndpointServer:
    """`received` and `answered` are the bodies that came, and those whose answer (a 200) was written completely.

    Each request takes the next of `misbehaviours`; when there are none left, `answer` replies.
    """

    def __init__(self) -> None:
        self.received: list[Body] = []
        self.received_at: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.answered: list[Body] = []
        self.misbehaviours: deque[Misbehaviour] = deque()
        self.answer: Callable[[Body], Body] = answer_to
        self.changed = threading.Condition()
        self.died = threading.Event()
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> "EndpointServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def texts_answered(self) -> list[str]:
        """Every draw that was paid, sorted; a duplicate was paid twice."""
        return sorted(text_for(body, i) for body in self.answered for i in range(body.get("n", 1)))

    def start(self) -> None:
        """Start again on the same port."""
        handler = type("Bound", (Exchange,), {"owner": self})
        self._http = _Listener(("127.0.0.1", self._port), handler)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening and close every connection; what was written before still arrives."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        with self.changed:
            for connection in self._connections:
                _shut(connection)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=60), "the server waited for something that never came"


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tests kill clients, so this is not printed."""


class Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: EndpointServer

    def setup(self) -> None:
        super().setup()
        with self.owner.changed:
            self.owner._connections.add(self.connection)

    def finish(self) -> None:
        with self.owner.changed:
            self.owner._connections.discard(self.connection)
        super().finish()

    def do_POST(self) -> None:
        self._body = body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.owner.changed:
            self.owner.received.append(body)
            self.owner.received_at.append(time.monotonic())
            self.owner.headers.append(dict(self.headers))
            misbehaviour = self.owner.misbehaviours.popleft() if self.owner.misbehaviours else None
            self.owner.changed.notify_all()
        if misbehaviour is not None:
            misbehaviour(self, body)
        else:
            self.send(200, self.owner.answer(body))

    def send(
        self, status: int, answer: Any, *, headers: Mapping[str, str] | None = None, missing_bytes: int = 0
    ) -> None:
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        with self.owner.changed:  # so that `stop` comes before all of it or after
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw) + missing_bytes))
            self.end_headers()
            self.wfile.write(raw)
            if status == 200 and isinstance(answer, dict) and answer.get("choices"):
                self.owner.answered.append(self._body)
            self.owner.changed.notify_all()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def status(code: int, message: str = "broken", **headers: str) -> Misbehaviour:
    """An error in OpenAI's form. `retry_after="0"` is a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange, body: exchange.send(code, {"error": {"message": message}}, headers=named)


def raw_answer(raw: bytes) -> Misbehaviour:
    return lambda exchange, body: exchange.send(200, raw)


def hang(exchange: Exchange, body: Body) -> None:
    """Send no answer until any test has timed out or the server stops."""
    exchange.owner.closing.wait(60)
    exchange.close_connection = True


def drop(exchange: Exchange, body: Body) -> None:
    _shut(exchange.connection)
    exchange.close_connection = True


def truncate(exchange: Exchange, body: Body) -> None:
    """Send half of an answer, then close the connection."""
    raw = json.dumps(answer_to(body)).encode()
    exchange.send(200, raw[: len(raw) // 2], missing_bytes=len(raw) // 2)
    drop(exchange, body)


def trickle(exchange: Exchange, body: Body) -> None:
    """Send a blank now and then, without end: no single read takes long."""
    exchange.send_response(200)
    exchange.send_header("Transfer-Encoding", "chunked")
    exchange.end_headers()
    try:
        while not exchange.owner.closing.wait(0.05):
            exchange.wfile.write(b"1\r\n \r\n")
    except OSError:
        exchange.close_connection = True


def die(exchange: Exchange, body: Body) -> None:
    """The server stops in the middle of a request; `start` restarts it."""
    exchange.owner.stop()
    exchange.close_connection = True
    exchange.owner.died.set()
