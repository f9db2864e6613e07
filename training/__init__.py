"""Snapshots to bundle. torch, Petastorm and MLflow live here; Spark does not."""
