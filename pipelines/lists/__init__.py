"""Published lists, measured by what happened afterwards."""
