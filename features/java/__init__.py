"""The Java that pip brings: where Spark finds it, and what its JVMs share."""
