"""One YAML file describes one pipeline."""
