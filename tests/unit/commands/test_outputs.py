"""Outputs that a user names: devices stay devices, inputs stay inputs, and no folder is made."""

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.cli import main
from selfreward.commands.outputs import check_output, inputs_of, write_output
from selfreward.errors import RecipeError
from selfreward.store import Store


def write(path: Path, content: bytes) -> None:
    write_output(path, lambda stream: stream.write(content))


def test_a_device_is_written_through(tmp_path: Path) -> None:
    check_output(Path("/dev/null"), option="--out")
    write(Path("/dev/null"), b"content")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116 - the real device, not a path's idea of it
    assert not [path for path in Path("/dev").iterdir() if "null" in path.name and path.name != "null"]


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    check_output(pipe, option="--out")
    write(pipe, b"content")
    reader.join()
    assert received == [b"content"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_standard_output_is_written_through_even_where_it_is_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    print("before", flush=True)
    write(Path("/dev/stdout"), b"content\n")
    print("after", flush=True)
    assert capfd.readouterr().out.split() == ["before", "content", "after"]


def test_a_link_leads_to_its_target(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    check_output(link, option="--out")
    write(link, b"new")
    assert target.read_bytes() == b"new" and link.is_symlink()


def test_an_input_is_never_overwritten_whatever_its_name(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("rows")
    hard, soft = tmp_path / "hard", tmp_path / "soft"
    hard.hardlink_to(source)
    soft.symlink_to(source)
    for path in (source, hard, soft, tmp_path / "x/../rows.jsonl"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(RecipeError, match="also an input of this command"):
            check_output(path, option="--out", inputs=[source])
    check_output(tmp_path / "other.jsonl", option="--out", inputs=[source])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "a folder"),
        ("none/x", "does not exist"),
        ("broken", "does not exist"),
        ("loop", "links; .*choose another path"),
        ("file/x", "Not a directory; .*choose another path"),
        ("x" * 240, "too long; .*choose another path"),  # its temporary name would be, after all the work
    ],
)
def test_outputs_that_cannot_be_files_are_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to(tmp_path / "none/x")
    with pytest.raises(RecipeError, match=words):
        check_output(tmp_path / name, option="--out")
    assert not (tmp_path / "none").exists()


def test_files_of_a_run_are_not_outputs(tmp_path: Path) -> None:
    with Store(tmp_path / "run") as store:
        store.read_or_make_json(1, "decision", lambda: 1)
    for name in ("manifest.json", "iteration-01/decision.json", "iteration-01/pairs.jsonl", "recipe.yaml"):
        with pytest.raises(RecipeError, match="a file of the run in"):
            check_output(store.folder / name, option="--pairs")
    check_output(store.folder / "pairs.jsonl", option="--pairs")


def test_files_of_a_model_are_not_outputs_whatever_leads_to_them(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "additional_chat_templates").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "additional_chat_templates/rag.jinja"):
        (model / name).write_text("{}")
    with Store(tmp_path / "run") as store:
        store.set_link("best", str(model))
    for path in (model / "config.json", model / "new.json", model / "additional_chat_templates/rag.jinja"):
        with pytest.raises(RecipeError, match="in the folder of a model"):
            check_output(path, option="--json")
    with pytest.raises(RecipeError, match="a file of the run in"):
        check_output(store.folder / "best/config.json", option="--json")
    check_output(tmp_path / "new.json", option="--json")


def test_every_file_that_a_recipe_names_is_an_input(tmp_path: Path) -> None:
    for name in ("prompts.jsonl", "gold.jsonl", "judge.txt"):
        (tmp_path / name).write_text("{}")
    recipe = recipe_file.load(Path("recipes/tiny.yaml"), [
        f"prompts={{kind: file, path: {tmp_path}/prompts.jsonl}}",
        f"evaluation.gold={{path: {tmp_path}/gold.jsonl}}",
        f"judging={{kind: constitution, principles: {tmp_path}/judge.txt}}",
    ])  # fmt: skip
    found = {path.relative_to(tmp_path).as_posix() for path in inputs_of(recipe) if path.is_relative_to(tmp_path)}
    assert found == {"prompts.jsonl", "gold.jsonl", "judge.txt"}


def test_monitor_makes_no_folders_and_overwrites_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "outcomes.csv"
    table.write_text("iteration,prompt_id,anchor_outcome\n" + "".join(f"1,p{i},1\n" for i in range(40)))
    content = table.read_bytes()
    assert main(["monitor", "--csv", str(table), "--json", str(tmp_path / "none/deep/x.json")]) == 2
    assert main(["monitor", "--csv", str(table), "--json", str(table)]) == 2
    assert "also an input" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.csv"] and table.read_bytes() == content
    assert main(["monitor", "--csv", str(table), "--json", str(tmp_path / "x.json")]) == 0


def test_what_a_killed_command_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    out = tmp_path / "out[1].jsonl"
    left = tmp_path / f".{out.name}.{dead.pid}.selfreward-partial"
    others = [
        tmp_path / f".{out.name}.{os.getppid()}.selfreward-partial",  # of a process that lives
        tmp_path / f".other.jsonl.{dead.pid}.selfreward-partial",
        tmp_path / f".{out.name}.{dead.pid}.partial",
        tmp_path / f".{out.name}.x.selfreward-partial",
    ]
    for path in (left, *others):
        path.write_bytes(b"half")
    write(out, b"content")
    assert out.read_bytes() == b"content" and not left.exists()
    assert all(path.read_bytes() == b"half" for path in others)
