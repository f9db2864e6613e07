"""Snapshots to registered models."""
