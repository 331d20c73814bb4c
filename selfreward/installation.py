"""What to install, or to uninstall, where the installed packages do not fit together.

transformers and vLLM import torchvision, torchaudio and torchcodec where they are installed, also for text. Their
published builds are for CUDA: beside the CPU build of torch, or beside another version of it, these imports fail, and
the error that is left does not say why.
"""

import importlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from selfreward.errors import InstallationError

_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_IMPORT_FAILURES = (ImportError, OSError, RuntimeError)


def require_transformers() -> None:
    """Raise InstallationError when transformers cannot be imported for a language model."""
    with broken_companions_explained():
        try:
            from transformers import LlamaForCausalLM  # noqa: F401  # with all that a model of text imports
        except _IMPORT_FAILURES as error:
            raise InstallationError(
                f"transformers {version_of('transformers')}: it cannot be imported ({_line(error)}); all packages that "
                "it needs must be installed; install them again with: pip install --force-reinstall selfreward-lm"
            ) from error


@contextmanager
def broken_companions_explained() -> Iterator[None]:
    """Turn an error in this context into an InstallationError if an installed companion of torch cannot be imported."""
    try:
        yield
    except _IMPORT_FAILURES as error:
        if broken := _broken_companions():
            found = ", ".join(f"{name} {version_of(name)} ({reason})" for name, reason in broken.items())
            raise InstallationError(
                f"{found}: of another build than torch {version_of('torch')}; transformers and vLLM import such "
                "packages where they are installed, and text needs none of them; uninstall them with: pip uninstall -y "
                f"{' '.join(_COMPANIONS)}"
            ) from error
        raise


def version_of(package: str) -> str:
    """Return the version of an installed package, "" where it is not known."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _broken_companions() -> dict[str, str]:
    """Return the installed companions that cannot be imported, with the reason."""
    broken = {}
    for name in _COMPANIONS:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        except _IMPORT_FAILURES as error:
            broken[name] = _line(error)
    return broken


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
