"""Plain functions that compose features and training, one per command."""
