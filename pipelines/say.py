"""Words for people."""

import sys


def say(text: str) -> None:
    """One line on stderr, at once; stdout belongs to results."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
