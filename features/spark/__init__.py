"""Spark distributes; the Spark-free parts of ``features`` do the work inside its tasks."""
