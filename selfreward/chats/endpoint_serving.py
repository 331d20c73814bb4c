"""Whether a server serves at all: refusals of single requests are data, but a server that refuses all ends the run.

* A request that the server refuses for its text (too long, or blocked) is unscored, and the run continues.
* So is one that it refuses with 400 or 422 for a reason that we do not know, or to which it gives no readable answer in
  any attempt, if it serves others.
* The run ends when the server has never served a request and refuses the first 32, or all of one call (of at least 2,
  or for an unknown reason); and when it refuses 32 in a row for unknown reasons. These refusals are not remembered.
"""

import threading
from collections.abc import Callable, Mapping

from selfreward.chats.endpoint_refusals import Garbled, Refused
from selfreward.requests import Reply

NUM_REFUSED = 32
_MIN_CALL = 2


class Serving:
    """Counts refusals, shared by threads. `remember` stores refused replies; `has_served`: in an earlier session."""

    def __init__(self, *, has_served: Callable[[], bool], remember: Callable[[Mapping[str, Reply]], None]) -> None:
        self._lock = threading.Lock()
        self._has_served = has_served
        self._remember = remember
        self._serves: bool | None = None  # None: not asked for yet
        self._waiting: dict[str, Reply] = {}  # refused, and not stored before the server serves another request
        self._num_unknown = 0  # in a row, without a known reason
        self._num_refused = 0
        self._last: Refused | Garbled | None = None
        self._is_known = True

    def begin(self) -> None:
        """Begin a call."""
        with self._lock:
            if self._serves is None:
                self._serves = self._has_served()

    def served(self) -> None:
        with self._lock:
            self._serves = True
            self._num_unknown = 0
            waiting, self._waiting = self._waiting, {}
        if waiting:
            self._remember(waiting)

    def refused(self, cause: Refused | Garbled, replies: Mapping[str, Reply], *, is_known: bool) -> None:
        """Count the refusal of a request, whose `replies` are stored once it is clear that the server serves others.

        Raises `cause` when it is one too many.
        """
        with self._lock:
            self._last, self._is_known = cause, is_known
            self._num_refused += 1
            self._num_unknown = 0 if is_known else self._num_unknown + 1
            if max(self._num_unknown, 0 if self._serves else self._num_refused) >= NUM_REFUSED:
                raise cause
            if not (self._serves and is_known):
                self._waiting |= replies
                return
        self._remember(replies)

    def end(self, *, num_requests: int) -> None:
        """End a call. Raises the last refusal when the server has refused all requests, and has never served any."""
        with self._lock:
            if self._last and not self._serves and (num_requests >= _MIN_CALL or not self._is_known):
                raise self._last
