"""How good predicted logits are."""
