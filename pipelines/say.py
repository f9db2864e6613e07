"""Words for people."""

from features.terminal import say

__all__ = ["say"]
