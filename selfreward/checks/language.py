"""IFEval's group language, and the detector itself: `langdetect`, whose language profiles are included in its
package."""

import functools
from pathlib import Path
from typing import Any, Final

import langdetect
from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

from selfreward.checks.arguments import Choice
from selfreward.checks.registry import check_kind

LANGUAGES: Final = tuple(sorted(path.name for path in Path(PROFILES_DIRECTORY).iterdir() if path.name[0] != "."))


@check_kind("language:response_language", language=Choice(LANGUAGES))
def response_language(text: str, *, language: str) -> bool:
    """The detected language, by langdetect's code; a text without letters passes, as published."""
    return language_of(text) in (language, None)


def language_of(text: str) -> str | None:
    """Return langdetect's code of the most likely language, or None when a text has no features.

    Differs: langdetect samples at random and IFEval does not seed it, so its result may change from call to call; here
    each call starts from the same seed, so that the result depends only on the text.
    """
    detector = _factory().create()
    detector.append(text)
    try:
        return str(detector.detect())
    except langdetect.LangDetectException:
        return None


@functools.cache
def _factory() -> Any:
    # A separate factory leaves langdetect's global seed unchanged; sorted profiles make sums independent of the
    # order in which a file system lists them.
    factory = DetectorFactory()
    factory.load_json_profile([(Path(PROFILES_DIRECTORY) / name).read_text("utf-8") for name in LANGUAGES])
    factory.set_seed(0)
    return factory
