"""Updates: from what an iteration made to new weights. One file a kind; training itself is a function of files."""

from selfreward.updates.dpo import dpo
from selfreward.updates.validation import problems
