"""The daily cycle and its upkeep."""
