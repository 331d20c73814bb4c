"""Two responses compared by a principle: the probabilities of the choices are soft labels.

What it does: for every pair of responses to a prompt one principle of the recipe's file is drawn (or all are used), and
the pair is compared in both orders. The score is the mean probability of being preferred, and `pairing.label:
preference` uses it as the pair's soft label. With `reasoning` the judge explains itself first, and the probabilities
are clamped, because after an explanation they are nearly always close to 0 or 1.

Paper: 2212.08073, section 4.1 (a principle drawn for each comparison, normalised probabilities of (A) and (B) as
labels; with chain of thought clamped to 40-60 %).
Differs: both orders use the same principle and are averaged; more than two responses per prompt; averaging over all
principles is an option, where the paper draws one.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from selfreward import recipe
from selfreward.errors import RecipeError
from selfreward.judging.client import JudgeClient
from selfreward.judging.comparing import Comparer, Matchup, num_opponents, opponents
from selfreward.parts import Chat, Models
from selfreward.records import Judgment, Prompt, Response
from selfreward.templates import Template
from selfreward.workload import Lengths, Requests, Workload
from selfreward.yaml_text import parse_yaml, plain, read_yaml_text

_WHAT = "a list of principles"

NAME = "constitution"
PAPER_CLAMP = (0.4, 0.6)


class ConstitutionJudge:
    """`parts.Judge` with scores in [0, 1]."""

    scale = (0.0, 1.0)

    def __init__(self, section: recipe.ConstitutionSection, *, chat: Chat, seed: int) -> None:
        self.by = frozenset((section.by,))
        self._section = section
        self._principles = read_principles(Path(section.principles))
        self._client = JudgeClient(NAME, section, chat, seed)
        clamp = section.clamp or (PAPER_CLAMP if section.reasoning else (0.0, 1.0))
        self._comparer = Comparer(section, self._client, Template.load(NAME), clamp)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return judgments as the pairwise judge does, for one principle or for each, in one engine call."""
        matchups = [
            Matchup(response, other, principle, name=f"principle-{number}")
            for response, other in opponents(responses)
            for number, principle in self._selected_principles(f"{response.id}~{other.id}", iteration)
        ]
        return self._comparer.judge(prompts, responses, matchups, models=models, iteration=iteration)

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        principles = self._principles
        if self._section.each_judgment == "one":  # the drawn one is at most as long as the longest
            principles = [max(principles, key=lengths.text)]
        return self._comparer.max_requests(
            work, lengths, num_matchups=num_opponents(work.num_responses), principles=principles
        )

    def _selected_principles(self, item: str, iteration: int) -> list[tuple[int, str]]:
        """Return the principles of one matchup with their numbers, from 1; both orders use the same ones."""
        numbered = list(enumerate(self._principles, start=1))
        if self._section.each_judgment == "all":
            return numbered
        return [random.Random(self._client.seed_of(iteration, f"{item}/principle")).choice(numbered)]


def read_principles(path: Path) -> list[str]:
    """Read the principles from a YAML list of sentences. Raises RecipeError."""
    where, advice = (
        f"judging.principles: {path}",
        "write one sentence per line, each after a dash, in quotes if it contains a colon",
    )
    try:
        text = read_yaml_text(path, what=_WHAT)
        found = plain(parse_yaml(text, name=str(path), what=_WHAT), name=str(path))
    except RecipeError as error:
        raise RecipeError(f"judging.principles: {error}; {advice}") from error
    if not isinstance(found, list) or not found:
        raise RecipeError(f"{where}: it contains {found!r:.60}; a YAML list of sentences is needed; {advice}")
    for number, principle in enumerate(found, start=1):
        if not isinstance(principle, str) or not principle.strip():
            raise RecipeError(f"{where}: entry {number} is {principle!r:.60}; a sentence is needed; {advice}")
    return [" ".join(principle.split()) for principle in found]
