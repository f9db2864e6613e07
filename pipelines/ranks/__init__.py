"""Processes that train together: on this machine, on several, or on Spark's executors."""
