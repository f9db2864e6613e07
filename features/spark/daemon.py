"""The process Spark forks Python workers from: ours imports the encoder once, so no task pays for it.

Two costs a reused worker would pay with every task are taken out: ``gc.collect`` walks the imported modules (frozen
here), and ``importlib.invalidate_caches`` reads the directory of pyspark.zip once for each of its packages, 90 ms in
all (an archive does not change while its executor runs).
"""

from __future__ import annotations

import gc
import os
import zipimport

gc.disable()  # what imports make stays: looking through it every few hundred objects finds nothing

import pandas  # noqa: E402, F401 - Spark's Arrow workers ask for it
from pyspark import daemon  # noqa: E402

import fieldwise.features.build.counting  # noqa: E402
import fieldwise.features.build.tallying  # noqa: E402
import fieldwise.features.build.tasks  # noqa: E402, F401
from fieldwise.features.kernels.compile import ENTRIES, is_kept  # noqa: E402


def _keep(self: zipimport.zipimporter) -> None:
    """In place of reading the archive's directory anew."""


if __name__ == "__main__":
    os.umask(os.umask(0o077) | int(os.environ.get("FIELDWISE_UMASK", "0"), 8))  # the JVM's may be older than ours
    zipimport.zipimporter.invalidate_caches = _keep  # type: ignore[method-assign]
    for each in ENTRIES:
        if is_kept(each.dispatcher):  # others are compiled where they are called, if they are
            each.load()
    gc.collect()
    gc.freeze()
    gc.enable()
    daemon.manager()
