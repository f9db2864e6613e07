"""The upkeep of workspaces and machines."""
