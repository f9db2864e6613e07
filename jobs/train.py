"""One training rank: ``torchrun --nproc-per-node 2 jobs/train.py --config configs/movielens.yaml``."""

from fieldwise.jobs.cli import door

if __name__ == "__main__":
    door("train", __file__)
