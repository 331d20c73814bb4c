"""The model as the judge of its own judgments, so that judging improves along with responding.

What it does: for each prompt the response whose scores vary most is selected. Every pair of its judgments is shown with
the rubric, in both orders, and the meta-judge explains itself and names the better one. Elo scores from these battles
rank the judgments, and the best against the worst becomes a preference pair.

Paper: 2407.19594, section 2.2 (selection by variance, both orders, weights of positions, Elo, length filter). Differs:
our own prompt text; Elo has a weak prior (`statistics/elo.py`); of more than `max_judgments` judgments a subset spread
evenly over the ranking by score is compared; two judgments with the same text tie without a query; an unreadable
verdict is stored as an unscored battle with its reason and has no weight, like a tie; a truncated judgment is never
chosen; one length limit for all iterations (the paper: 1,100 and 1,000 characters); pairs are capped at a share of all
pairs, shard by shard, largest margins first.
"""

from collections.abc import Iterable, Sequence

from selfreward import recipe
from selfreward.meta_judging.judgment_pairs import judgment_pairs, largest_margins, max_pairs
from selfreward.meta_judging.matchups import JudgmentMatchup, matchups, shown
from selfreward.parts import Chat, Models
from selfreward.readers import read_choice, without_reasoning
from selfreward.records import Battle, Judgment, PreferencePair, Prompt, Response
from selfreward.requests import ChatRequest, Reply
from selfreward.seeding import seed_of
from selfreward.statistics.elo import position_weights
from selfreward.templates import Template
from selfreward.workload import Lengths, Requests, Workload

SAME_TEXT = "the same text twice"


class MetaJudge:
    """A generative model that compares judgments."""

    def __init__(
        self, section: recipe.MetaJudgingSection, *, judge: recipe.AdditiveSection, chat: Chat, seed: int
    ) -> None:
        """`judge` is the section of the judge whose judgments are judged."""
        self.section, self.judge = section, judge
        self._chat = chat
        self._seed = seed
        self._template = Template.load("meta_judge")

    @property
    def by(self) -> frozenset[str]:
        return frozenset((self.section.by,))

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        """Return an upper bound on the requests of `battles`: all judgments of one response per prompt, in both
        orders."""
        num_judgments = min(self.judge.num_draws, self.section.max_judgments)
        empty = {"response": "", "judgment_a": "", "judgment_b": ""}
        first_P = [lengths.question(self._template, prompt, thinking=True, **empty) for prompt in work.prompts]
        return [
            Requests(
                by=self.section.by,
                first_P=tuple(work.max_tokens + first for first in first_P),
                rest=2 * self.judge.max_tokens,
                times=num_judgments * (num_judgments - 1),
                num_common=min(first_P, default=0),
                chat_request=ChatRequest((), max_tokens=self.section.max_tokens, temperature=self.section.temperature),
                may_not_fit=True,
            )
        ]

    def battles(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        judgments: Sequence[Judgment],
        *,
        models: Models,
        iteration: int,
    ) -> list[Battle]:
        """Return all battles, from one engine call. Judgments of responses not in `responses` are ignored.

        Raises EngineError from the model; never because of what a model wrote.
        """
        compared = matchups(prompts, responses, judgments, max_judgments=self.section.max_judgments)
        requests = {
            matchup.id: self._request(matchup, iteration)
            for matchup in compared
            if shown(matchup.first) != shown(matchup.second)
        }
        sent = self._chat.reply(list(requests.values()), models=models) if requests else []
        replies = {name: reply for name, (reply,) in zip(requests, sent, strict=True)}
        return [self._battle(matchup, replies.get(matchup.id), models) for matchup in compared]

    def pairs(
        self,
        judgments: Sequence[Judgment],
        battles: Sequence[Battle],
        *,
        all_battles: Iterable[Battle],
        num_response_pairs: int,
        num_judgment_pairs: int = 0,
    ) -> tuple[PreferencePair, ...]:
        """Return the pairs of judgments, sorted by id, within the cap on their share."""
        weights = position_weights(all_battles)
        pairs = judgment_pairs(judgments, battles, weights=weights, max_chosen_chars=self.section.max_chosen_chars)
        return largest_margins(pairs, max_pairs(self.section.max_share, num_response_pairs) - num_judgment_pairs)

    def _request(self, matchup: JudgmentMatchup, iteration: int) -> ChatRequest:
        messages = self._template.render(
            prompt=matchup.prompt.messages,
            response=without_reasoning(matchup.response.text),
            judgment_a=shown(matchup.first),
            judgment_b=shown(matchup.second),
        )
        return ChatRequest(
            messages,
            max_tokens=self.section.max_tokens,
            temperature=self.section.temperature,
            top_p=self.section.top_p,
            seed=seed_of(self._seed, iteration, "meta_judging", matchup.id),
        )

    def _battle(self, matchup: JudgmentMatchup, reply: Reply | None, models: Models) -> Battle:
        """Return the battle of a matchup; without a reply it is a tie."""
        winner_id, unscored = ("", None) if reply is None else self._read(matchup, reply)
        return Battle(
            id=matchup.id,
            prompt_id=matchup.prompt.id,
            response_id=matchup.response.id,
            first_id=matchup.first.id,
            second_id=matchup.second.id,
            winner_id=winner_id,
            unscored=unscored,
            text=SAME_TEXT if reply is None else reply.text,
            checkpoint_id=self._chat.model_id(models),
            template_sha256=self._template.sha256,
        )

    def _read(self, matchup: JudgmentMatchup, reply: Reply) -> tuple[str, str | None]:
        """Return the id of the winner, and the reason if there is no verdict."""
        if reply.skipped is not None:
            return "", reply.skipped
        verdict = read_choice(reply.text, finish_reason=reply.finish_reason or "stop", what="judgment")
        if verdict.score is None:
            return "", verdict.unscored and verdict.unscored.value
        if verdict.score == 0.5:
            return "", None
        return (matchup.first if verdict.score > 0.5 else matchup.second).id, None
