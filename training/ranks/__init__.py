"""Processes that train together: the only room that sets up torch.distributed."""
