"""Logits of rows, and the exact best items of a catalog."""
