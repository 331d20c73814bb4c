"""`selfreward monitor`: the same decisions from a table and from a run folder, for people and as JSON."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfreward import recipe_file
from selfreward.cli import main
from selfreward.commands.monitor import monitor_table, render
from selfreward.evaluation.tables import OUTCOMES
from selfreward.monitoring.decide import decide_all
from selfreward.monitoring.evidence import Evidence, tabulate
from selfreward.recipe import MonitorSection
from selfreward.records import Decision, Evaluation, PromptOutcome
from selfreward.store import Store

DOCUMENT = Path(__file__).parents[3] / "docs" / "monitor.md"
RECIPE = """
name: made
output_dir: runs/made
models: {policy: {model: none}}
prompts: {kind: builtin}
judging: {kind: additive}
evaluation: {num_prompts: 400, num_second_validation_prompts: 0}
monitor: {delta: 0.08, min_pairs: 2}
"""


def simulated(gains: list[float], *, num_prompts: int = 800, seed: int = 0) -> list[list[PromptOutcome]]:
    """Return wins, ties (40 %) and losses against the previous checkpoint, for each iteration."""
    chance = np.random.default_rng(seed)

    def drawn(gain: float) -> float:
        return float(chance.choice([1, 0.5, 0], p=[0.3 + gain, 0.4, 0.3 - gain]))

    return [
        [PromptOutcome(f"p{i}", "validation", "anchor", t - 1, drawn(gain)) for i in range(num_prompts)]
        for t, gain in enumerate(gains, start=1)
    ]


def write_table(path: Path, outcomes: list[list[PromptOutcome]]) -> Path:
    lines = ["iteration,prompt_id,anchor_outcome"]
    for t, rows in enumerate(outcomes, start=1):
        lines += [f"{t},{row.prompt_id},{row.outcome}" for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def run_folder(folder: Path, outcomes: list[list[PromptOutcome]], **changed: Any) -> list[Decision]:
    """Make a run folder with only the files that the monitor reads; return the decisions that the run made."""
    recipe = recipe_file.parse(RECIPE)
    evidence = [Evidence(t, t - 1, tabulate(rows), anchor_examined=True) for t, rows in enumerate(outcomes, start=1)]
    made = decide_all(evidence, recipe.monitor)
    made[-1] = replace(made[-1], **changed)
    with Store(folder, name="made") as store:
        store.write_text("recipe.yaml", recipe_file.dump(recipe))
        for rows, decision in zip(outcomes, made, strict=True):
            t = decision.iteration
            store.stage(t, OUTCOMES, 1, lambda _, rows=rows: rows)
            store.read_or_make_json(t, "training", lambda: {"num_steps": 3})
            store.read_or_make_json(t, "evaluation", lambda t=t: asdict(Evaluation(t, {"anchor_valid": 1.0})))
            store.read_or_make_json(t, "decision", lambda decision=decision: asdict(decision))
    return made


def strict_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_table_and_json_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = simulated([0.2, 0.12, 0.08, 0.0, -0.02])
    path = write_table(tmp_path / "outcomes.csv", outcomes)
    assert main(["monitor", "--csv", str(path), "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    found = strict_json((tmp_path / "out.json").read_text())
    decisions = found["decisions"]
    assert found["schema"] == 1 and [d["iteration"] for d in decisions] == [1, 2, 3, 4, 5]
    assert [d["decision"] for d in decisions] == ["CONTINUE"] * 3 + ["PLATEAU"] * 2
    assert found["stopped_at"] == 4 and found["best_iteration"] == 3
    assert [d["stopped_by"] for d in decisions] == ["", "", "", "PLATEAU", "PLATEAU"]
    rows = re.findall(r"^ +(\d+)  ([A-Z]+) +([+-]\d+\.\d)   ([+-]\S+) to ([+-]\S+) +(\d+)$", printed, re.MULTILINE)
    for row, decision in zip(rows, decisions, strict=True):
        gain = decision["bounds"]["gain_vs_previous"]
        low, high = gain["stop"]
        assert row[:2] == (str(decision["iteration"]), decision["decision"])
        assert [float(x) for x in row[2:5]] == [round(100 * x, 1) for x in (gain["mean"], low, high)]
        assert int(row[5]) == gain["num_prompts"] == 800
        assert decision["reason"] in " ".join(printed.split())
        assert decision["alpha_spending"]["stop"] == pytest.approx(0.05 * decision["iteration"] / 8)
    # Decisions after the stop are listed below it, and the last line states what to do.
    assert printed.index("PLATEAU") < printed.index("after the stop") < printed.rindex("PLATEAU  ")
    assert printed.rstrip().endswith("Stop after iteration 4 by PLATEAU; use M_3.")
    assert all(len(line) <= 88 for line in printed.splitlines() if str(path) not in line)


def test_with_json_only_json_is_printed_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_table(tmp_path / "outcomes.csv", simulated([0.1]))
    path.write_text(path.read_text().replace("anchor_outcome\n", "anchor_outcome,more\n").replace(".5\n", ".5,x\n"))
    path.write_text(re.sub(r"(?<=\.0)$", ",x", path.read_text(), flags=re.MULTILINE))
    for form in (["--json"], ["--json", "-"]):
        assert main(["monitor", "--csv", str(path), *form]) == 0
        captured = capsys.readouterr()
        assert [d["iteration"] for d in strict_json(captured.out)["decisions"]] == [1]
        assert captured.err == "note: columns that the monitor does not use are ignored: more\n"


@pytest.mark.parametrize("value", ["0", "0.5", "1", "0.7"])
def test_an_anchor_without_variance_is_invalid_and_not_a_plateau(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    path = tmp_path / "outcomes.csv"
    lines = [f"{t},p{i},{value},0.5" for t in (1, 2, 3) for i in range(800)]
    path.write_text("\n".join(["iteration,prompt_id,anchor_outcome,self_outcome", *lines]))
    assert main(["monitor", "--csv", str(path), "--json"]) == 0
    found = strict_json(capsys.readouterr().out)
    assert [d["decision"] for d in found["decisions"]] == ["INVALID"] * 3
    assert found["stopped_at"] is None and found["best_iteration"] == 0


def test_settings_change_the_decision_and_wrong_ones_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_table(tmp_path / "outcomes.csv", simulated([0.2, 0.0]))

    def decided(*overrides: str) -> Any:
        arguments = [argument for override in overrides for argument in ("--set", override)]
        assert main(["monitor", "--csv", str(path), "--json", *arguments]) == 0
        return strict_json(capsys.readouterr().out)

    assert decided()["stopped_at"] == 2
    assert [d["decision"] for d in decided("delta=0.01")["decisions"]] == ["CONTINUE", "INCONCLUSIVE"]
    assert decided("delta=0.3", "horizon=2")["stopped_at"] == 1
    assert decided("mode=report_only")["stopped_at"] is None
    assert decided("delta=0.03")["settings"] == decided("monitor.delta=0.03")["settings"]
    for wrong, said in {
        "delta=5": "override: monitor.delta: found 5; input should be less than 0.5",
        "delat=0.1": "did you mean 'delta'?",
        "monitor.delat=0.1": "unknown key",
        "min_pairs=4": "min_pairs has no effect here",
        "min_reliability=0.1": "min_reliability has no effect here",
        "delta": "not KEY=VALUE",
    }.items():
        assert main(["monitor", "--csv", str(path), "--set", wrong]) == 2
        assert said in capsys.readouterr().err


def test_few_outcomes_give_strict_json_and_no_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One prompt, two, none readable, only verifiable ones: too few data give no stop and no error."""
    heading = "iteration,prompt_id,anchor_outcome,verifiable_outcome,length_delta_tokens\n"
    for rows in ("1,a,1,,\n", "1,a,1,,4\n1,b,0,,5\n", "1,a,,,\n", "1,a,,1,\n1,b,,0.5,\n"):
        (tmp_path / "few.csv").write_text(heading + rows)
        assert main(["monitor", "--csv", str(tmp_path / "few.csv"), "--json"]) == 0
        (decision,) = strict_json(capsys.readouterr().out)["decisions"]
        assert decision["decision"] in ("INVALID", "INCONCLUSIVE") and decision["stopped_by"] == ""
        assert main(["monitor", "--csv", str(tmp_path / "few.csv")]) == 0
        assert "use M_0" in capsys.readouterr().out


def test_a_run_is_decided_again_from_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = simulated([0.2, 0.1, 0.0], num_prompts=400)
    made = run_folder(tmp_path / "run", outcomes)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert main(["monitor", str(tmp_path / "run"), "--json"]) == 0
    captured = capsys.readouterr()
    found = strict_json(captured.out)
    assert found["settings"]["delta"] == 0.08 and captured.err == ""
    for decision, stored in zip(found["decisions"], made, strict=True):
        assert decision["decision"] == stored.decision and decision["reason"] == stored.reason
        assert decision["bounds"] == json.loads(json.dumps(stored.bounds))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    # With other settings the decisions differ from those of the run.
    assert main(["monitor", str(tmp_path / "run"), "--set", "delta=0.01"]) == 0
    captured = capsys.readouterr()
    assert "No stop up to iteration 3" in captured.out
    assert "note: iteration 3: the run itself decided PLATEAU" in captured.err
    # Settings that only apply to a running run cannot be changed here.
    assert main(["monitor", str(tmp_path / "run"), "--set", "min_pairs=4"]) == 2


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"stopped_by": "MAX_ITERATIONS"}, "the run itself was stopped by MAX_ITERATIONS"),
        ({"stopped_by": "", "intervention": "more_draws"}, "the run continued with the intervention more_draws"),
    ],
)
def test_differences_from_the_run_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], note: str
) -> None:
    run_folder(tmp_path / "run", simulated([0.2, 0.0], num_prompts=400), **changed)
    assert main(["monitor", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"note: iteration 2: {note}\n"
    assert "Stop after iteration 2 by PLATEAU; use M_1." in captured.out


def test_arguments_that_are_neither_run_nor_table_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_table(tmp_path / "outcomes.csv", simulated([0.1], num_prompts=3))
    assert main(["monitor", str(path)]) == 2
    assert f"pass a table as --csv {path}" in capsys.readouterr().err
    assert main(["monitor", "--csv", str(tmp_path / "none.csv")]) == 2
    assert main(["monitor", str(tmp_path)]) == 2  # as for status and report
    with Store(tmp_path / "young", name="young") as store:
        store.write_text("recipe.yaml", recipe_file.dump(recipe_file.parse(RECIPE)))
        store.record_event("started")
    assert main(["monitor", str(tmp_path / "young")]) == 4
    assert "no finished iteration yet" in capsys.readouterr().err
    for arguments in (["monitor"], ["monitor", str(tmp_path), "--csv", str(path)]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


def test_the_command_imports_no_heavy_library(tmp_path: Path) -> None:
    path = write_table(tmp_path / "outcomes.csv", simulated([0.1], num_prompts=20))
    code = (
        f"import sys\nfrom selfreward.cli import main\nassert main(['monitor', '--csv', {str(path)!r}]) == 0\n"
        "print({'torch', 'transformers', 'trl', 'vllm', 'datasets', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_missing_outcomes_of_the_second_validation_set_are_reported(tmp_path: Path) -> None:
    """The first analysis of iteration 1 is inconclusive, and the table has no second validation set for it."""
    wins = [1.0] * 256 + [0.5] * 320 + [0.0] * 224
    lines = [f"1,p{i},{x},validation" for i, x in enumerate(wins)] + [
        f"2,p{i},{x},validation" for i, x in enumerate(wins)
    ]
    lines += [f"2,r{i},{1 - x},second_validation" for i, x in enumerate(wins)]
    (tmp_path / "t.csv").write_text("\n".join(["iteration,prompt_id,anchor_outcome,set", *lines]))
    monitored = monitor_table(tmp_path / "t.csv")
    assert [d.num_analyses for d in monitored.decisions] == [1, 2]
    text = " ".join(render(monitored).split())
    assert (
        text.count("The monitor would use the second validation set here") == 1
        and text.count("with the second validation set") == 1
    )
    assert monitored.settings == MonitorSection()


def test_the_document_shows_the_output_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, mark, _ = DOCUMENT.read_text(encoding="utf-8").partition("<!-- a trainer -->\n")
    table, in_python = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert mark
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(table, "monitor.md, table", "exec"), names)  # our own document
    (shown,) = re.findall(r"^```\n(outcomes.csv: .*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert main(["monitor", "--csv", "outcomes.csv"]) == 0
    assert capsys.readouterr().out.strip() == shown.strip()
    (as_json,) = re.findall(r"^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert main(["monitor", "--csv", "outcomes.csv", "--json"]) == 0
    promised, found = json.loads(as_json), json.loads(capsys.readouterr().out)
    assert promised.keys() == found.keys() and promised["stopped_at"] == found["stopped_at"]
    assert promised["decisions"][0].keys() == found["decisions"][0].keys()
    assert promised["decisions"][0]["alpha_spending"] == found["decisions"][0]["alpha_spending"]
    assert promised["decisions"][0]["reason"] == found["decisions"][0]["reason"]
    exec(compile(in_python, "monitor.md, Python", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["CONTINUE", "CONTINUE", "PLATEAU", "2"]


def test_the_power_table_of_the_document_is_correct() -> None:
    """The power by the normal approximation, as stated; the last row is its inverse."""
    from statistics import NormalDist

    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| prompts | delta"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[start : start + 9]]
    deltas = [float(cell.removeprefix("delta ")) for cell in rows[0][1:]]
    z, deviation = NormalDist().inv_cdf(1 - 0.05 / 8), 0.15**0.5
    for num, *cells in rows[2:8]:
        expected = [NormalDist().cdf(delta * int(num) ** 0.5 / deviation - z) for delta in deltas]
        assert [float(cell) for cell in cells] == pytest.approx(expected, abs=0.006)
    needed = [((z + NormalDist().inv_cdf(0.8)) * deviation / delta) ** 2 for delta in deltas]
    assert [int(cell) for cell in rows[8][1:]] == pytest.approx(needed, abs=1)
