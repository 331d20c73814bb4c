"""Models that are neither a folder nor on the hub: what is said, and what to do."""

from pathlib import Path

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from selfreward.errors import RecipeError
from selfreward.model_files import materialise
from selfreward.model_files.hub_errors import not_from_hub
from selfreward.recipe import ModelSection


def refusal(name: str) -> str:
    with pytest.raises(RecipeError) as caught:
        materialise(ModelSection(model=name))
    return str(caught.value)


def test_a_path_of_nothing_is_answered_with_what_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine-0").mkdir(parents=True)
    meant = f"did you mean '{tmp_path / 'runs' / 'mine-0'}'?"
    for name in (str(tmp_path / "runs" / "mine0"), "./runs/mine0"):
        message = refusal(name)
        assert message.endswith(f"there is no such folder; {meant}")
        assert "Error" not in message and len(message) < 300
    assert refusal("./runs/other").endswith(f"{tmp_path / 'runs'} has mine-0; correct the path")
    unclear = refusal("runs/mine0")
    assert f"there is no such folder ({meant}), it is not in the hub's cache" in unclear


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LocalEntryNotFoundError("long"), "where there is a network run `hf download org/name`"),
        (
            RepositoryNotFoundError.__new__(RepositoryNotFoundError),
            "the hub has no model of this name, or it is private",
        ),
        (GatedRepoError.__new__(GatedRepoError), "ask for access on https://huggingface.co/org/name"),
        (RevisionNotFoundError.__new__(RevisionNotFoundError), "no revision 'v2'; correct or remove `revision`"),
        (ValueError("odd\nlong text"), "(ValueError: odd); correct what it names"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(error: Exception, words: str) -> None:
    assert words in str(not_from_hub("org/name", "v2", error))
