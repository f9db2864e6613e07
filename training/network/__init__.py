"""Model, table and lookup as one thing, and the bundle that it is saved as."""
