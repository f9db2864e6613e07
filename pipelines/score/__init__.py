"""Models to probabilities and explanations of rows."""
