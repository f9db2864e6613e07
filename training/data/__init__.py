"""Published files to batches: the only room that imports petastorm."""
