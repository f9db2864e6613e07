"""Which version a reference stands for, and where its bundle lies, read from a workspace's own database without MLflow,
whose import takes seconds.

Only what is plain: whatever else there is (a server, another schema, a workspace that was moved, nothing of that name)
is MLflow's to answer, and to refuse in `registry` and `fetch`.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from fieldwise.features import store

DATABASE, STORE = "mlflow.db", "MLFLOW_TRACKING_URI"
"""A local workspace's own store, and the environment variable that names another."""
ALIASES = ("champion", "challenger")
REFERENCE = r"models:/(.+)(?:@([^@/]+)|/(\d+))"
_VERSION = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
_PLACE = (
    "SELECT storage_location FROM model_versions WHERE name = ? AND version = ? AND current_stage <> 'Deleted_Internal'"
)
_ALIASES = "SELECT alias FROM registered_model_aliases WHERE name = ? AND version = ?"


class Registered(NamedTuple):
    """A version in the registry; ``alias`` is the one it was named by, else its most important one."""

    name: str
    version: str
    alias: str | None

    @staticmethod
    def of(name: str, version: str, alias: str | None, aliases: Iterable[str]) -> Registered:
        """``alias``: what it was named by; ``aliases``: all that it has."""
        has = set(aliases)
        first = next((each for each in (*ALIASES, *sorted(has)) if each in has), None)
        return Registered(name, version, alias or first)

    @property
    def reference(self) -> str:
        return f"models:/{self.name}/{self.version}"


def look_up(reference: str, uri: str | None, workspace: str) -> tuple[str, Registered] | None:
    """The bundle's directory, and the version, of ``models:/NAME@alias`` or ``models:/NAME/3``; None where MLflow must
    be asked.

    Args:
        uri: the store that the config names, if any.
    """
    match = re.fullmatch(REFERENCE, reference)
    if match is None or uri or os.environ.get(STORE) or not store.is_local(workspace):
        return None
    name, alias, version = match.groups()
    try:
        file = Path(workspace, DATABASE).absolute().as_uri()
        with closing(sqlite3.connect(f"{file}?mode=ro", uri=True)) as database:
            if alias is not None:
                ((version,),) = database.execute(_VERSION, (name, alias))
            ((location,),) = database.execute(_PLACE, (name, int(version)))
            aliases = [each for (each,) in database.execute(_ALIASES, (name, int(version)))]
    except (sqlite3.Error, ValueError, OverflowError):  # no such table; none or several rows; no number, a large one
        return None
    if not str(location).startswith(f"{store.file_uri(workspace)}/artifacts/"):
        return None
    found = sorted(Path(unquote(str(location).removeprefix("file://")), "artifacts").glob("*/model.json"))
    return (str(found[0].parent), Registered.of(name, str(version), alias, aliases)) if found else None
