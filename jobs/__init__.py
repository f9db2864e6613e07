"""Doors: spark-submit, torchrun and command-line entry points. Parse, call one pipeline, exit code."""
