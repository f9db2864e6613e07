"""Words for people."""

import sys

from features.errors import printable


def say(text: str) -> None:
    """One line on stderr, at once; stdout belongs to results."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()
