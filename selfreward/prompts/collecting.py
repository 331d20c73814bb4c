"""The prompts of a source, and what was found in it: shapes, dropped rows by reason, repeated prompts.

A row that cannot be used is dropped and counted. Beyond `max_dropped_rate` the source is refused, with the counts and
the first rows. A prompt that was already read is left out and counted apart: it is no defect of its row.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from selfreward.errors import RecipeError
from selfreward.prompts.files import Row
from selfreward.prompts.normalise import conversation_key
from selfreward.prompts.rows import Found
from selfreward.prompts.unusable import UnusableRow
from selfreward.recipe import Columns

SHOWN_ROWS = 10
MAX_HOPELESS_ROWS = 100_000
"""When this many rows were read and none could be used, the others are not read."""

_MAX_COLUMNS = 1000


@dataclass
class Defects:
    """What is wrong with the rows of a source, the rows with the same defect in one line; the first `SHOWN_ROWS`."""

    places: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    num_others: int = 0

    def add(self, where: str, what: str) -> None:
        if what not in self.places and len(self.places) == SHOWN_ROWS:
            self.num_others += 1
            return
        self.counts[what] += 1
        if self.counts[what] <= SHOWN_ROWS:
            self.places.setdefault(what, []).append(where)

    def lines(self) -> list[str]:
        return [f"{_places(places, self.counts[what])}: {what}" for what, places in self.places.items()]

    def __str__(self) -> str:
        return listed(self.lines(), len(self.places) + self.num_others)


def _places(places: list[str], num_all: int) -> str:
    """Return the first places, the name of their file once: "a.csv, line 2, line 5 and 3 more rows"."""
    file = places[0].rpartition(", ")[0]
    others = [place.removeprefix(f"{file}, ") for place in places[1:]]
    more = f" and {num_all - len(places):,} more rows" if num_all > len(places) else ""
    return ", ".join([places[0], *others]) + more


@dataclass
class Summary:
    """What was found in a source. `dropped` counts by reason, `defects` are those of the dropped rows.

    `columns` are those of the rows (at most `_MAX_COLUMNS`), `used` those that were read. `num_changed_ids` counts ids
    that are not those of the rows, because they were repeated or have other characters than allowed.
    """

    name: str
    num_rows: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    defects: Defects = field(default_factory=Defects)
    num_repeated: int = 0
    num_changed_ids: int = 0
    columns: dict[str, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @property
    def num_dropped(self) -> int:
        return self.dropped.total()

    @property
    def unused(self) -> list[str]:
        used = {name.lower() for name in self.used}
        return [name for name in self.columns if name.strip().lower() not in used]

    def notes(self) -> list[str]:
        """Return sentences that the user should read."""
        found = []
        if self.dropped:
            found.append(
                f"{self.name}: {self.num_dropped:,} of {self.num_rows:,} rows are dropped ({counted(self.dropped)}); "
                f"for example {self.defects.lines()[0]}"
            )
        if self.num_repeated:
            found.append(
                f"{self.name}: {self.num_repeated:,} repeated prompts are left out (case, white space and a final full "
                "stop do not count)"
            )
        if self.num_changed_ids:
            found.append(
                f"{self.name}: {self.num_changed_ids:,} ids are changed, because they are repeated or have other "
                "characters than A-Z a-z 0-9 . _ -"
            )
        return found


def counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.most_common())


def listed(lines: Iterable[str], num_all: int) -> str:
    """Return the first lines below each other, and the number of the others."""
    shown = [f"  {line}" for line in lines][:SHOWN_ROWS]
    return "\n".join([*shown, *([f"  ... and {num_all - len(shown):,} more"] if num_all > len(shown) else [])])


def collect(
    rows: Iterable[Row],
    read: Callable[[Row], Found],
    *,
    name: str,
    max_dropped_rate: float,
    section: str | None,
    columns: Columns,
) -> tuple[list[Found], Summary]:
    """Return what `read` finds in the rows, and the summary. Raises RecipeError when too many rows are unusable.

    `section` is the section of the recipe that has the keys `max_dropped_rate` and `columns`, for messages; None where
    there are none. Each of `columns` must occur in some row.
    """
    summary = Summary(name)
    found: list[Found] = []
    keys: set[bytes] = set()
    ids: set[str] = set()
    for row in rows:
        summary.num_rows += 1
        try:
            if len(summary.columns) < _MAX_COLUMNS:
                summary.columns.update(dict.fromkeys(row.columns))
            each = read(row)
        except UnusableRow as error:
            summary.dropped[error.reason] += 1
            summary.defects.add(row.where, str(error))
            if summary.num_dropped == summary.num_rows == MAX_HOPELESS_ROWS:
                break
            continue
        key = conversation_key(each.prompt)
        if key in keys:
            summary.num_repeated += 1
            continue
        keys.add(key)
        summary.shapes[each.shape] += 1
        summary.used |= each.used
        found.append(_with_own_id(each, row, ids, summary))
    _require_rows(summary, columns, max_dropped_rate, section)
    return found, summary


def _with_own_id(each: Found, row: Row, taken: set[str], summary: Summary) -> Found:
    """Return it with an id that no earlier prompt has."""
    prompt_id = each.prompt.id
    if prompt_id in taken:
        prompt_id = f"{prompt_id[:60]}-{row.id}"[:100]
    while prompt_id in taken:
        prompt_id = f"{prompt_id[:90]}-{len(taken)}"
    taken.add(prompt_id)
    if prompt_id != each.prompt.id or not each.has_own_id:
        summary.num_changed_ids += 1
    return replace(each, prompt=replace(each.prompt, id=prompt_id))


def _require_rows(summary: Summary, columns: Columns, max_dropped_rate: float, section: str | None) -> None:
    name = summary.name
    if not summary.num_rows:
        raise RecipeError(f"{name}: it contains no prompt, and no row at all; give a file with one prompt per row")
    if summary.num_dropped > max_dropped_rate * summary.num_rows or summary.num_dropped == summary.num_rows:
        some = summary.num_dropped < summary.num_rows
        allowed = f"at most a share of {max_dropped_rate:g} may be dropped; " if some else ""
        raise RecipeError(
            f"{name}: {summary.num_dropped:,} of {summary.num_rows:,} rows cannot be used "
            f"({counted(summary.dropped)}); "
            f"{allowed}correct or remove these rows"
            f"{_advice(summary, section)}\n{summary.defects}"
        )
    for key, column in columns:
        if column is not None and column not in summary.columns and len(summary.columns) < _MAX_COLUMNS:
            raise RecipeError(
                f"{name}: no column {column!r}, which columns.{key} names; the columns are "
                f"{', '.join(map(repr, summary.columns))[:400]}; name one of these, or remove the key"
            )


def _advice(summary: Summary, section: str | None) -> str:
    """Return what else helps: naming the columns where none was found, or allowing more rows to be dropped."""
    if section is None:
        return ""
    advice = []
    if summary.dropped["missing_column"]:
        advice.append(f"or name the column of the prompt: {section}.columns.prompt=NAME")
    if summary.num_dropped < summary.num_rows:  # some prompt is left
        advice.append(f"or raise {section}.max_dropped_rate")
    return "".join(f", {each}" for each in advice)
