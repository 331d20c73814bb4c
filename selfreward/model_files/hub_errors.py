"""Why a model is neither here nor on the hub, and what to do, in the place of the hub library's errors."""

from selfreward.errors import RecipeError
from selfreward.recipe.nearby import beside
from selfreward.recipe.paths import existing_path


def missing_folder(name: str) -> RecipeError:
    """Return the error for a name that looks like a path and names nothing."""
    return RecipeError(f"model {name!r}: it looks like a path, and there is no such folder; {beside(name)}")


def not_from_hub(name: str, revision: str | None, error: Exception) -> RecipeError:
    """Return the error for a hub id that could not be had."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"model {name!r}: there is no such folder"
    if existing_path(name.partition("/")[0]) is not None:  # a hub id may begin with the name of a folder too
        where += f" ({beside(name)})"
    if isinstance(error, GatedRepoError):
        page = f"https://huggingface.co/{name}"
        return RecipeError(
            f"{where}, and the hub gives it to members only; ask for access on {page}, then `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return RecipeError(
            f"{where}, and the hub has no model of this name, or it is private; correct the name, or log in with "
            "`hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return RecipeError(f"{where}, and the hub's model has no revision {revision!r}; correct or remove `revision`")
    if isinstance(error, FileNotFoundError | ConnectionError):
        return RecipeError(
            f"{where}, it is not in the hub's cache ({HF_HUB_CACHE}), and the hub cannot be reached; correct the name, "
            f"or where there is a network run `hf download {name}`, with HF_HUB_OFFLINE unset"
        )
    reason = str(error).strip().split("\n")[0]
    return RecipeError(
        f"{where}, and the hub returned none ({type(error).__name__}: {reason:.200}); correct what it names"
    )
