"""The demo: a shop whose truth is known."""
