"""Epochs: what a training is asked for, does, proves, keeps and gives."""
