"""Raw logs to published snapshots."""
