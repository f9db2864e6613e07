"""What every call has in common with a command: where words go, who may read what it writes, how it ends."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from fieldwise.features.errors import known_error
from fieldwise.features.interrupt import Interrupted
from fieldwise.features.terminal import say

# what libraries say when they find no widgets for their bars in a notebook; ours need none
warnings.filterwarnings("ignore", "IProgress not found")


@contextmanager
def call(name: str | None = None) -> Iterator[None]:
    """Around one call. Progress goes to stderr, errors are the product's own, Ctrl-C is ``KeyboardInterrupt``.

    Args:
        name: of what takes a while, for the first words.

    What is written meanwhile is for its user and group, as with a command; the umask of the process comes back.
    """
    former = os.umask(0o077)
    os.umask(former | 0o007)
    if name is not None:
        say(f"fieldwise {name} ...")
    try:
        with redirect_stdout(sys.stderr):  # what libraries tell people
            yield
    except Interrupted as interrupted:  # a SystemExit, which would end a notebook's cell without a word
        raise KeyboardInterrupt from interrupted
    except Exception as error:
        known = known_error(error)
        if known is None or known is error:
            raise
        raise known from error
    finally:
        os.umask(former)
