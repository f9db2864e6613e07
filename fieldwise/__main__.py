"""``python -m fieldwise``: the commands, where their script is not on the path."""

import sys

from fieldwise.jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
