"""Which files a source means, and their bytes."""
