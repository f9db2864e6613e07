"""The process Spark forks Python workers from: ours imports the encoder once, so no task pays for it.

``gc.freeze`` keeps the collector of each forked worker off the imported modules (shared pages stay shared).
"""

from __future__ import annotations

import gc

from pyspark import daemon

import features.encoder
import features.fitting
import features.log  # noqa: F401

if __name__ == "__main__":
    gc.collect()
    gc.freeze()
    daemon.manager()
