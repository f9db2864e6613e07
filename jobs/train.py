"""One training rank: ``torchrun --nproc-per-node 2 jobs/train.py --config configs/movielens.yaml``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this folder's names would hide others
    from jobs.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
