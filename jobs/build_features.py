"""Raw logs to a published snapshot: ``spark-submit jobs/build_features.py --config configs/movielens.yaml``."""

from fieldwise.jobs.cli import door

if __name__ == "__main__":
    door("features", __file__)
