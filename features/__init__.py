"""Raw logs to snapshots. This package is free of torch; only ``features.spark`` meets Spark."""
