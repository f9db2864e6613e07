"""A config for a log that nobody has described yet: what its files look like, what follows, and why."""
