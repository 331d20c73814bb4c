"""`selfreward judge` against a hostile endpoint: no traceback, known exit codes, and no reply is paid for twice."""

import json
import os
import random
import shutil
import threading
from pathlib import Path

from campaign import forks
from campaign.results import Results, shown
from cases.hostile_servers import FAILURES, KEY, READ, UNSCORED, good
from fakes.endpoint_server import Body, EndpointServer, Exchange

PART = "endpoint"
_TINY = str(Path(__file__).parents[2] / "recipes/tiny.yaml")
_ROWS = [{"id": n, "prompt": f"Name sea {n}.", "response": f"Sea {n}."} for n in range(8)]
_HOSTILE = {
    **{f"read/{name}": answer for name, answer in READ.items()},
    **{f"{reason}/{name}": answer for reason, cases in UNSCORED.items() for name, answer in cases.items()},
    **{f"fails/{name}": answer for name, (answer, _) in FAILURES.items()},
}


def campaign(results: Results, work: Path, *, num_rounds: int, case: str = "") -> None:
    """Judge `num_rounds` times with a server that answers a third of the requests in hostile ways."""
    work.mkdir(parents=True, exist_ok=True)
    for number in shown([int(case)] if case else range(num_rounds), PART):
        with EndpointServer() as server:
            _one(results, server, work, number)
        results.counts["hostile_rounds"] += 1


def _one(results: Results, server: EndpointServer, work: Path, number: int) -> None:
    chance = random.Random(f"{results.seed}/{PART}/{number}")
    lock = threading.Lock()
    paid: list[str] = []
    hostile = True

    def answer(exchange: Exchange, body: Body) -> None:
        with lock:
            server.misbehaviours.append(answer)
            name = chance.choice(list(_HOSTILE)) if hostile and chance.random() < 1 / 3 else ""
            asked = json.dumps(body["messages"])
            if not name or name.startswith("read/"):
                paid.append(asked)
        if name:
            _HOSTILE[name](exchange, body)
        else:
            exchange.send(200, good(body))

    server.misbehaviours.append(answer)
    place, rows, log = work / "place", work / "rows.jsonl", work / "log"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    rows.write_text("".join(json.dumps(row) + "\n" for row in _ROWS))
    settings = "timeout_s: 2, max_attempts: 2, max_concurrency: 2, api_key_env: HOSTILE_KEY"
    command = ["judge", _TINY, str(rows), "--out", str(place / "out.jsonl")]
    for key in (f"models.gpt={{endpoint: '{server.url}', model: m, {settings}}}", "iterations.shard_prompts=2",
                "judging={kind: additive, by: gpt, num_draws: 1}"):  # fmt: skip
        command += ["--set", key]
    for attempt in range(12):
        hostile = attempt < 11
        ended = forks.run(command, log=log, prepare=lambda: os.environ.update(HOSTILE_KEY=KEY))
        results.counts["tracebacks"] += ended.has_traceback
        if ended.has_traceback or ended.exit_code not in (0, 4) or KEY in ended.output:
            results.fail(PART, f"exit code {ended.exit_code}: {ended.output[-800:]}", case=str(number))
            return
        if ended.exit_code == 0:
            break
    twice = sorted(asked for asked in set(paid) if paid.count(asked) > 1)
    results.counts["paid_twice"] += len(twice)
    if ended.exit_code != 0 or twice or len((place / "out.jsonl").read_text().splitlines()) != len(_ROWS):
        results.fail(
            PART, f"exit code {ended.exit_code}, paid twice: {len(twice)}: {ended.output[-400:]}", case=str(number)
        )
