"""Exported pairs: the format that other trainers read, unchanged texts, and refusals."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from selfreward import recipe_file
from selfreward.cli import main
from selfreward.commands.export import export_pairs
from selfreward.errors import RecipeError, StoreError
from selfreward.judging.client import JudgeInput
from selfreward.judging.generative import score_messages
from selfreward.recipe import AdditiveSection
from selfreward.records import Judgment, Message, PreferencePair, Prompt, Response
from selfreward.store import Store
from selfreward.tables import JUDGMENTS, PAIRS, PROMPTS, RESPONSES, TRAINING
from selfreward.templates import Template

HOSTILE = [
    "plain",
    "",
    'quotes " \\ and \r\n\ttabs',
    "control \x00 \x01 \x07 \x1b[31m \x7f",
    "line ends \u0085 \u2028 \u2029 of other alphabets",
    "Grüße, 你好, שלום, 😀, e\u0301, \ufeff, \U0010ffff",
    "<script>alert(1)</script> {{ template }} <|im_end|>",
    '{"role": "assistant", "content": "not a row"}',
]
SYSTEM = Message("system", "Antworte kurz. \x00")


def pair(prompt: Prompt, chosen: str, rejected: str, score: float = 4.5) -> PreferencePair:
    return PreferencePair(
        id=f"{prompt.id}#pair",
        prompt_id=prompt.id,
        kind="response",
        chosen_id=f"{prompt.id}/0",
        rejected_id=f"{prompt.id}/1",
        prompt_token_ids=(1, 2),
        chosen_token_ids=(3, 4),
        rejected_token_ids=(5,),
        chosen_text=chosen,
        rejected_text=rejected,
        chosen_score=score,
        rejected_score=score - 1.25,
        margin=1.25,
    )


def prompt(name: str, text: str) -> Prompt:
    turns = (SYSTEM, Message("user", "first"), Message("assistant", "reply"), Message("user", text))
    return Prompt(id=name, messages=turns)


def make_run(folder: Path, *iterations: Sequence[tuple[str, str, str]], unpaired: str = "no pair of this") -> Path:
    """Make a run folder whose iteration t has the pairs (prompt, chosen, rejected) of `iterations[t - 1]`."""
    with Store(folder, name="by-hand") as store:
        for number, texts in enumerate(iterations, start=1):
            prompts = [prompt(f"p{number}-{i}", text) for i, (text, _, _) in enumerate(texts)]
            pairs = [pair(p, chosen, rejected) for p, (_, chosen, rejected) in zip(prompts, texts, strict=True)]
            prompts.append(prompt(f"p{number}-dropped", unpaired))
            num_shards = -(-len(prompts) // 2)
            store.stage(number, PROMPTS, num_shards, lambda k, all_=prompts: all_[2 * k : 2 * k + 2])
            store.stage(number, PAIRS, num_shards, lambda k, all_=pairs: all_[2 * k : 2 * k + 2])
    return folder


def rows_of(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    # As in a JSONL reader, only \n ends a line.
    return [json.loads(line) for line in file.read_bytes().decode().split("\n")[:-1]]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_turns_of_tools_are_exported_in_the_form_of_chat_templates(tmp_path: Path, suffix: str) -> None:
    offered = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    call = {"id": "call_1", "name": "weather", "arguments": {"city": "Łódź"}}
    turns = (
        Message("tools", json.dumps(offered)), Message("user", "Weather?"), Message("tool_calls", json.dumps([call])),
        Message("tool", "rain"),
    )  # fmt: skip
    prompts = [Prompt("with", turns), prompt("without", "plain")]
    with Store(tmp_path / "run", name="by-hand") as store:
        store.stage(1, PROMPTS, 1, lambda _: prompts)
        store.stage(1, PAIRS, 1, lambda _: [pair(each, "good", "bad") for each in prompts])
    file = tmp_path / f"pairs{suffix}"
    assert export_pairs(tmp_path / "run", file).num_pairs == 2
    first, second = rows_of(file)
    assert json.loads(first["tools"]) == offered and second["tools"] is None
    user, assistant, result = first["prompt"]
    assert (user["content"], result["content"], result["tool_call_id"]) == ("Weather?", "rain", "call_1")
    (made,) = assistant["tool_calls"]
    assert (assistant["role"], made["id"], made["function"]["name"]) == ("assistant", "call_1", "weather")
    assert json.loads(made["function"]["arguments"]) == call["arguments"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    first = [(text, f"chosen {text}", f"rejected {text}") for text in HOSTILE]
    return make_run(tmp_path / "run", first, [("second", "yes", "no")])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_every_row_is_a_conversation_and_no_character_is_lost(run: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"pairs{suffix}"
    assert export_pairs(run, file).num_pairs == len(HOSTILE) + 1
    rows = rows_of(file)
    assert len(rows) == len(HOSTILE) + 1
    for text, row in zip(HOSTILE, rows, strict=False):
        assert row == {
            "kind": "response",
            "prompt": [
                {"role": "system", "content": SYSTEM.content},
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "reply"},
                {"role": "user", "content": text},
            ],
            "chosen": [{"role": "assistant", "content": f"chosen {text}"}],
            "rejected": [{"role": "assistant", "content": f"rejected {text}"}],
            "chosen_message": {"role": "assistant", "content": f"chosen {text}"},
            "rejected_message": {"role": "assistant", "content": f"rejected {text}"},
            "score_chosen": 4.5,
            "score_rejected": 3.25,
            "iteration": 1,
        }
    assert (rows[-1]["chosen"][0]["content"], rows[-1]["iteration"]) == ("yes", 2)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_datasets_library_reads_the_format_that_trl_documents(run: Path, tmp_path: Path, suffix: str) -> None:
    datasets = pytest.importorskip("datasets")
    file = tmp_path / f"pairs{suffix}"
    export_pairs(run, file)
    builder = {".jsonl": "json", ".parquet": "parquet"}[suffix]
    loaded = datasets.load_dataset(builder, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == len(HOSTILE) + 1
    for column in ("prompt", "chosen", "rejected"):
        # A conversation is a list of messages, each with exactly a role and a content.
        assert all(set(message) == {"role", "content"} for message in loaded[0][column])
    assert [row["prompt"][-1]["content"] for row in loaded][:-1] == HOSTILE
    assert [row["rejected"][0]["content"] for row in loaded][:-1] == [f"rejected {text}" for text in HOSTILE]


def test_one_iteration_alone(run: Path, tmp_path: Path) -> None:
    assert export_pairs(run, tmp_path / "two.jsonl", iteration=2).num_pairs == 1
    assert [row["prompt"][-1]["content"] for row in rows_of(tmp_path / "two.jsonl")] == ["second"]
    assert export_pairs(run, tmp_path / "one.jsonl", iteration=1).num_pairs == len(HOSTILE)


def test_pairs_that_trained_no_model_are_exported_and_named(run: Path, tmp_path: Path) -> None:
    with Store(run) as store:
        store.read_or_make_json(1, TRAINING, lambda: {"num_pairs": len(HOSTILE)})
    exported = export_pairs(run, tmp_path / "all.jsonl")
    assert exported.num_pairs == len(HOSTILE) + 1
    assert exported.notes == (
        "the pairs of iteration 2 have trained no model: the update was skipped, or is still to come",
    )
    assert export_pairs(run, tmp_path / "one.jsonl", iteration=1).notes == ()


def test_an_older_file_is_replaced_atomically(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("an older and longer file\n" * 1000)
    export_pairs(run, file, iteration=2)
    assert len(rows_of(file)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "run"]


def test_a_running_run_can_be_exported(run: Path, tmp_path: Path) -> None:
    with Store(run):
        assert export_pairs(run, tmp_path / "pairs.jsonl").num_pairs == len(HOSTILE) + 1


@pytest.mark.parametrize("name", ["pairs.csv", "pairs", "pairs.json"])
def test_another_suffix_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=r"allowed are \.jsonl and \.parquet"):
        export_pairs(run, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_an_iteration_without_pairs_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"iteration 3 has no response pairs; iterations with response pairs are 1, 2; export one"
    ):
        export_pairs(run, tmp_path / "pairs.jsonl", iteration=3)
    empty = tmp_path / "empty"
    with Store(empty) as store:
        store.record_event("started")
    with pytest.raises(RecipeError, match="the run has no response pairs; no iteration has made pairs yet; continue"):
        export_pairs(empty, tmp_path / "pairs.jsonl")
    assert not (tmp_path / "pairs.jsonl").exists()


def test_a_folder_that_is_not_a_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        export_pairs(tmp_path, tmp_path / "pairs.jsonl")
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        export_pairs(tmp_path / "nowhere", tmp_path / "pairs.jsonl")
    assert not (tmp_path / "nowhere").exists()


def test_changed_pairs_are_not_exported(run: Path, tmp_path: Path) -> None:
    stored = run / "iteration-01" / "pairs.parquet"
    stored.write_bytes(stored.read_bytes()[:-1] + b"X")
    with pytest.raises(StoreError, match="changed after it was written"):
        export_pairs(run, tmp_path / "pairs.jsonl")
    assert not (tmp_path / "pairs.jsonl").exists()


def test_a_path_that_is_not_writable_is_reported_with_advice(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match=r"--pairs .*file/pairs\.jsonl: Not a directory; .*choose another path"):
        export_pairs(run, tmp_path / "file" / "pairs.jsonl")
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    with pytest.raises(RecipeError, match=r"--pairs .*folder\.jsonl: a folder; .*give the name of a file"):
        export_pairs(run, folder)
    own = run / "iteration-01/pairs.parquet"
    content = own.read_bytes()
    with pytest.raises(RecipeError, match=r"a file of the run in .*, which it would overwrite"):
        export_pairs(run, own)
    assert own.read_bytes() == content
    assert list(folder.iterdir()) == [] and not list(tmp_path.glob("*partial"))


def test_pairs_of_a_run_of_the_earlier_version_are_exported(run: Path, tmp_path: Path) -> None:
    num_pairs = export_pairs(run, tmp_path / "now.jsonl").num_pairs
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "schema": 1}))
    assert export_pairs(run, tmp_path / "earlier.jsonl").num_pairs == num_pairs
    assert (tmp_path / "earlier.jsonl").read_bytes() == (tmp_path / "now.jsonl").read_bytes()


# --- pairs of judgments ----------------------------------------------------------------------------------------------

ASKED = "Name a sea that borders Italy."
BETTER, WORSE = "It does border Italy.\nScore: 5", "It is wrong.\nScore: 0"


def make_meta_run(folder: Path, *, judging: str = "", template_sha256: str | None = None, records: bool = True) -> Path:
    """Make a run with a pair of responses and a pair of judgments of the first one, as meta-judging makes them."""
    question = Prompt("p1", (Message("user", ASKED),), reference="The Adriatic Sea.")
    sha256 = template_sha256 or Template.load("additive").sha256
    judgments = [
        Judgment(f"p1/0/additive/{draw}", "p1", "p1/0", "additive", draw, score, None, text, template_sha256=sha256)
        for draw, (score, text) in enumerate([(5.0, BETTER), (0.0, WORSE)])
    ]
    responses = [Response("p1/0", "p1", (1,), (2,), None, "<think>hm</think>The Adriatic.", "stop", 0, "M_0")]
    of_responses = pair(question, "The Adriatic.", "The Baltic.")
    of_judgments = dataclasses.replace(
        of_responses, id="p1#judgments", kind="judgment", chosen_id=judgments[0].id, rejected_id=judgments[1].id,
        chosen_text=BETTER, rejected_text=WORSE, chosen_score=1032.0, rejected_score=968.0, margin=64.0,
    )  # fmt: skip
    with Store(folder, name="by-hand") as store:
        store.stage(1, PROMPTS, 1, lambda _: [question])
        if records:
            store.stage(1, RESPONSES, 1, lambda _: responses)
            store.stage(1, JUDGMENTS, 1, lambda _: judgments)
        store.stage(1, PAIRS, 1, lambda _: [of_judgments, of_responses])
        if judging:
            recipe = recipe_file.load(Path("recipes/tiny.yaml"), [f"judging={judging}"])
            store.write_text("iteration-01/recipe.yaml", recipe_file.dump(recipe))
    return folder


ADDITIVE = "{kind: additive, by: policy}"


def test_pairs_of_judgments_are_left_out_unless_they_are_wanted(tmp_path: Path) -> None:
    run = make_meta_run(tmp_path / "run", judging=ADDITIVE)
    assert export_pairs(run, tmp_path / "pairs.jsonl").num_pairs == 1
    (row,) = rows_of(tmp_path / "pairs.jsonl")
    assert (row["kind"], row["chosen_message"]["content"], row["score_chosen"]) == ("response", "The Adriatic.", 4.5)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("settings", ["", "reference_answer: true", "structured: true"])
def test_the_prompt_of_a_pair_of_judgments_is_the_judges_question(tmp_path: Path, suffix: str, settings: str) -> None:
    section = AdditiveSection.model_validate(
        {"kind": "additive", **({settings.partition(":")[0]: True} if settings else {})}
    )
    run = make_meta_run(tmp_path / "run", judging=f"{{kind: additive, by: policy, {settings}}}")
    file = tmp_path / f"pairs{suffix}"
    assert export_pairs(run, file, kind="judgment") == export_pairs(run, file, kind="judgment", iteration=1)
    (row,) = rows_of(file)
    about = JudgeInput((Message("user", ASKED),), reference="The Adriatic Sea." if section.reference_answer else None)
    response = Response("p1/0", "p1", (), (), None, "The Adriatic.", "stop", 0, "M_0")
    (asked,) = score_messages(Template.load("additive"), section, about, response)
    assert row["prompt"] == [{"role": "user", "content": asked.content}]
    assert ASKED in asked.content and "The Adriatic." in asked.content and "hm" not in asked.content.split()
    assert row["chosen"] == [{"role": "assistant", "content": BETTER}]
    assert (row["kind"], row["elo_chosen"], row["elo_rejected"]) == ("judgment", 1032.0, 968.0)
    assert not {"score_chosen", "score_rejected"} & row.keys()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_all_pairs_have_the_same_columns(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"pairs{suffix}"
    run = make_meta_run(tmp_path / "run", judging=ADDITIVE)
    assert export_pairs(run, file, kind="all").num_pairs == 2
    numbers = ("kind", "score_chosen", "score_rejected", "elo_chosen", "elo_rejected")
    assert [tuple(row[name] for name in numbers) for row in rows_of(file)] == [
        ("judgment", None, None, 1032.0, 968.0),
        ("response", 4.5, 3.25, None, None),
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "the recipe of the iteration cannot be read"),
        ({"judging": "{kind: verifier}"}, "the recipe of the iteration cannot be read"),
        ({"judging": ADDITIVE, "records": False}, "judgments or responses are not stored"),
        ({"judging": ADDITIVE, "template_sha256": "0" * 64}, "template is another one"),
        ({"judging": "{kind: additive, by: policy, commit_first: {}}"}, "own response"),
    ],
)
def test_a_pair_whose_question_is_unknown_is_left_out_with_the_reason(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    run = make_meta_run(tmp_path / "run", **settings)
    exported = export_pairs(run, tmp_path / "pairs.jsonl", kind="all")
    assert [row["kind"] for row in rows_of(tmp_path / "pairs.jsonl")] == ["response"]
    note, untrained = exported.notes
    assert "have trained no model" in untrained
    assert note.startswith("pairs of judgments that are left out: 1, because ") and reason in note
    with pytest.raises(RecipeError, match=rf"no judgment pairs \(pairs of .*{reason}"):
        export_pairs(run, tmp_path / "pairs.jsonl", kind="judgment")


def test_the_command_writes_responses_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = make_meta_run(tmp_path / "run", judging=ADDITIVE), tmp_path / "pairs.jsonl"
    for option, num_rows in (((), 1), (("--kind", "judgment"), 1), (("--kind", "all"), 2)):
        assert main(["export", str(run), "--pairs", str(file), *option]) == 0
        assert capsys.readouterr().out == f"{num_rows} pairs -> {file}\n"
        assert len(rows_of(file)) == num_rows
