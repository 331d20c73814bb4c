"""Declarative, deterministic checks of a text: {"kind": NAME, **arguments}.

The 25 instruction kinds of IFEval under their published names and argument names, plus regex, exact, numeric and math.
Where a check departs from the published one, its file says so. No kind needs a download.

Paper: 2311.07911 (IFEval), section 2.1 (kinds), section 2.2 (strict and loose).
"""

from selfreward.checks import (  # these files fill KINDS
    change_case,
    combination,
    detectable_content,
    detectable_format,
    exact,
    keywords,
    language,
    length_constraints,
    math_kind,
    numeric,
    pattern,
    punctuation,
    startend,
)
from selfreward.checks.answers import answer_classes
from selfreward.checks.checking import from_ifeval, pass_all, passes, share_passed, validate, variants
from selfreward.checks.registry import KINDS, Check, Kind, check_kind
