"""Models to ranked lists of a catalog."""
