"""Errors of transformers, tokenizers and safetensors on the files of a model, as errors that name the model."""

from collections.abc import Iterator
from contextlib import contextmanager

from selfreward.errors import RecipeError, SelfRewardError


@contextmanager
def reading_model(
    what: str, wanted: str = "a folder that transformers loads is needed", *, kind: type[SelfRewardError] = RecipeError
) -> Iterator[None]:
    """Turn whatever a library raises on a model's files into an error of this kind; around calls of libraries only.

    No list of exceptions would be complete: a file of another type inside fails anywhere in the library's code
    (AttributeError, KeyError, RecursionError), and the Rust part of tokenizers panics with a class of its own.
    """
    try:
        yield
    except (SelfRewardError, MemoryError):
        raise
    except Exception as error:
        raise kind(_message(what, wanted, error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise kind(_message(what, wanted, error)) from error


def _message(what: str, wanted: str, error: BaseException) -> str:
    cause = " ".join(str(error).split())[:500]
    return f"{what}: cannot be read ({type(error).__name__}: {cause}); {wanted}; download or copy the model again"
