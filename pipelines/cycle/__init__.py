"""The daily cycle: what a date learns from, decides and leaves behind."""
