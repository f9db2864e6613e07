"""What a training reports, and the registry: the only room that imports mlflow."""
