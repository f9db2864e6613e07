"""Raw columns as texts, numbers, moments and expressions."""
