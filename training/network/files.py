"""Names of a bundle's files, which `bundle` tells of: here, because who sends one to MLflow needs no torch."""

WEIGHTS, MODEL, DATA, LEARNED = "weights.safetensors", "model.json", "data.json", "learned.json"
CHOSEN, FAMILY = "chosen.json", "family.json"
