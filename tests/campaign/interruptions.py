"""Random signals over all stages of several runs: the same files at the end, nothing made twice, no traceback."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from campaign import forks
from campaign.forks import Ended, Interruption
from campaign.results import Results, shown
from campaign.runs import TWO_PROCESSES, VARIANTS, Variant, contents, finished_files, stage_of

PART = "interruptions"
_CODES = {signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: 130}
_LONG_S = 900.0
_MAX_ROUNDS = 60  # of one run; a run that never ends is a failure


def campaign(results: Results, work: Path, *, num_kills: int, case: str = "") -> None:
    """Interrupt the variants `num_kills` times in all. `case` is NAME or NAME:RUN, to repeat one variant."""
    variants = VARIANTS
    if results.short and not case:
        variants = (VARIANTS[0], random.Random(f"{results.seed}/{PART}").choice(VARIANTS[1:]))
    shares = sum(variant.share for variant in variants)
    for variant in variants:
        if case in ("", variant.name) or case.startswith(f"{variant.name}:"):
            wanted = max(1, round(num_kills * variant.share / shares))
            _interrupt(results, variant, work / variant.name, wanted)
    if not results.short and case in ("", TWO_PROCESSES.name):
        kill_ranks(results, TWO_PROCESSES, work / TWO_PROCESSES.name)


def _interrupt(results: Results, variant: Variant, work: Path, wanted: int) -> None:
    work.mkdir(parents=True, exist_ok=True)
    log = work / "log"
    # The folder has one name, because records may contain it.
    folder = work / "run"
    whole = forks.run(variant.command(folder), log=log, prepare=variant.prepare)
    if whole.exit_code not in (0, 3):
        results.fail(PART, f"the untouched run ended with {whole.exit_code}: {whole.output[-500:]}", case=variant.name)
        return
    expected = contents(folder)
    num_done = num_runs = 0
    with shown(range(wanted), f"{PART} {variant.name}") as bar:
        while num_done < wanted:
            shutil.rmtree(folder)
            case = f"{variant.name}:{num_runs}"
            chance = random.Random(f"{results.seed}/{PART}/{case}")
            num = _one_run(results, variant, folder, log, chance, whole, expected, case)
            num_done, num_runs = num_done + num, num_runs + 1
            bar.update(num)
    results.counts["runs"] += num_runs


def _one_run(
    results: Results,
    variant: Variant,
    folder: Path,
    log: Path,
    chance: random.Random,
    whole: Ended,
    expected: dict[str, str],
    case: str,
) -> int:
    """Interrupt one run until it is finished, compare it, and return the number of interruptions."""
    num_interruptions = 0
    for _ in range(_MAX_ROUNDS):
        before = finished_files(folder)
        drawn = forks.drawn_interruption(chance, num_changes=whole.num_changes, seconds=whole.seconds)
        ended = forks.run(variant.command(folder), log=log, prepare=variant.prepare, interruption=drawn)
        _check(results, drawn, ended, whole, case)
        after = finished_files(folder)
        remade = [name for name in before.keys() & after.keys() if before[name] != after[name]]
        results.counts["remade"] += len(remade)
        if remade:
            results.fail(PART, f"made again: {', '.join(remade)}", case=case)
        if ended.interrupted:
            num_interruptions += 1
            results.kills_by_stage[stage_of(folder)] += 1
            results.counts[f"signal_{drawn.signal.name}"] += 1
        if ended.exit_code == whole.exit_code:
            break
    else:
        results.fail(PART, f"not finished after {_MAX_ROUNDS} rounds", case=case)
    _compare(results, folder, expected, case)
    return num_interruptions


def _compare(results: Results, folder: Path, expected: dict[str, str], case: str) -> None:
    found = contents(folder)
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    results.counts["files_compared"] += len(expected)
    results.counts["differences"] += len(different)
    if different:
        results.fail(PART, f"not as in the untouched run: {', '.join(different[:5])}", case=case)


def _check(results: Results, drawn: Interruption, ended: Ended, whole: Ended, case: str) -> None:
    allowed = {whole.exit_code}
    if ended.interrupted and drawn.signal in _CODES:
        allowed.add(_CODES[drawn.signal])
    if ended.has_traceback:
        results.counts["tracebacks"] += 1
    if ended.exit_code not in allowed or ended.has_traceback:
        found = f"{drawn}: exit code {ended.exit_code} of {sorted(allowed)}; {ended.output[-800:]}"
        results.fail(PART, found, case=case)


def kill_ranks(results: Results, variant: Variant, work: Path) -> None:
    """Kill one of two training processes, and press Ctrl-C; the next command continues to the same checkpoint."""
    work.mkdir(parents=True, exist_ok=True)
    folder, log = work / "run", work / "log"
    whole = forks.run(variant.command(folder), log=log, limit_s=_LONG_S)
    if whole.exit_code != 0:
        results.fail(PART, f"the untouched run ended with {whole.exit_code}: {whole.output[-800:]}", case=variant.name)
        return
    expected = contents(folder)
    chance = random.Random(f"{results.seed}/{PART}/{variant.name}")
    shutil.rmtree(folder)
    for code, words, strike in (
        (4, "was killed by SIGKILL", lambda ranks: os.kill(chance.choice(ranks), signal.SIGKILL)),
        (130, "stopped by SIGINT", lambda _: os.killpg(0, signal.SIGINT)),
        (4, "was killed by SIGKILL", lambda ranks: os.kill(chance.choice(ranks), signal.SIGKILL)),
    ):
        strikes = _when_ranks_work(strike, wait_s=chance.random() * 4)
        ended = forks.run(variant.command(folder), log=log, limit_s=_LONG_S, prepare=strikes)
        results.kills_by_stage["training in two processes"] += 1
        results.counts["tracebacks"] += ended.has_traceback
        if ended.exit_code != code or words not in ended.output or ended.has_traceback:
            found = f"exit code {ended.exit_code} and not {code}: {ended.output[-800:]}"
            results.fail(PART, found, case=variant.name)
    forks.run(variant.command(folder), log=log, limit_s=_LONG_S)
    _compare(results, folder, expected, variant.name)


def _when_ranks_work(strike: Callable[[list[int]], object], *, wait_s: float) -> Callable[[], None]:
    """Return what starts, in the fork of a command, a process that strikes when its training processes are there."""

    def prepare() -> None:
        command = os.getpid()
        if os.fork():
            return
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is in the group that gets it
        while not _ranks(command):
            time.sleep(0.05)
        time.sleep(wait_s)
        strike(_ranks(command))
        os._exit(0)

    return prepare


def _ranks(command: int) -> list[int]:
    """Return the training processes that descend from a command."""
    parents, ranks = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                if b"\0RANK=" in b"\0" + entry.joinpath("environ").read_bytes():
                    ranks.append(int(entry.name))
    return sorted(rank for rank in ranks if command in _ancestors(rank, parents))


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid in parents:
        pid = parents[pid]
        yield pid
