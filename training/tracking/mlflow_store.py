"""How an MLflow store is spoken to: what it refuses is told from its silence, and writes that collide are tried again.

A store that answers "there is no such thing" or "I do not take that" needs its user; one that does not answer, or
answers with a proxy's page, a 5xx or a missing permission, needs time. Stores lock nothing for us: of two writers at
once, one is told of a constraint or a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from fieldwise.features import store
from fieldwise.features.errors import (
    ConfigError,
    CredentialsError,
    FieldwiseError,
    StorageError,
    TrackingError,
    storage_error,
)
from fieldwise.features.redact import redacted

T = TypeVar("T")
TRIES, PAUSE_SECONDS = 8, 0.05
"""Of a write that collides; pauses are drawn, the first below PAUSE_SECONDS, then twice as long: 6 s in all at most."""
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc")
_NO = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_COLLISION = ("BAD_REQUEST", "TEMPORARILY_UNAVAILABLE", "RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS", "ABORTED",
              "RESOURCE_CONFLICT")  # fmt: skip
_STRANGERS = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_READ_ONLY, _FULL, _DAMAGED = "readonly database", "database or disk is full", "disk image is malformed"


def ask(call: Callable[[], T]) -> T | None:
    """The store's answer; None when it answers that there is no such thing. Raises TrackingError when it is silent."""
    try:
        return _tried(call)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if says_no(error):
            return None
        raise trouble(error) from error


def tell(call: Callable[[], T]) -> T:
    """Write to the store. ``call`` reads what is there before it writes, for it runs again when a writer was faster.

    Raises TrackingError when the store is silent, ConfigError when it refuses.
    """
    try:
        return _tried(call)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise trouble(error) from error


@cache
def open_store(uri: str) -> None:
    """Open an SQLite store while no other process does: two that make its tables at once leave half of them.

    MLflow's own first experiment lies beside the file, by a quoted name: MLflow would take the current directory, and
    write its name into SQL as it stands, quotes and colons too.
    """
    file = make_url(uri).database if uri.startswith("sqlite") else None
    if file and os.access(os.path.dirname(os.path.abspath(file)), os.W_OK):
        with open(f"{file}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            SqlAlchemyStore(uri, store.file_uri(os.path.join(os.path.dirname(file), "mlruns")))


def _tried(call: Callable[[], T]) -> T:
    open_store(str(mlflow.get_tracking_uri()))
    for attempt in range(TRIES - 1):
        try:
            return call()
        except MlflowException as error:
            if error.error_code not in _COLLISION or _READ_ONLY in str(error):
                raise
            time.sleep(random.uniform(0, PAUSE_SECONDS * 2**attempt))  # noqa: S311  two who wait alike collide again
    return call()


def says_no(error: Exception) -> bool:
    """Whether the store answered that there is no such thing, or that it does not take this."""
    return isinstance(error, MlflowException) and error.error_code in _NO


def trouble(error: Exception) -> FieldwiseError:
    """A store's refusal, which its user mends, or its silence, which passes."""
    where = f"MLflow {mlflow.get_tracking_uri()}"
    found = redacted(" ".join(str(error).split()).removesuffix("."))[:300] or type(error).__name__
    if says_no(error):
        return ConfigError(where, expected="names that it takes", found=found, fix="Mend `tracking` in the config.")
    if _READ_ONLY in str(error):
        fix = "Set another tracking.uri or workspace, or mend the permissions."
        return ConfigError(where, expected="a database to write to", found="a read-only one", fix=fix)
    if _DAMAGED in str(error):
        fix = "Take a copy from before, or move it away: `train` makes another, and bundles lie in the workspace."
        return ConfigError(where, expected="a whole database", found="a damaged one", fix=fix)
    if _FULL in str(error):
        fix = "Free some, and run the same command again."
        return StorageError(where, expected="room to write", found=_FULL, fix=fix)
    if isinstance(error, MlflowException) and (
        error.error_code in _STRANGERS or re.search(r"failed with error code 40[13]\b", str(error))
    ):
        fix = (
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or ask for the right."
        )
        return CredentialsError(where, expected="credentials that it accepts", found=f"a refusal: {found}", fix=fix)
    full = storage_error(error) if isinstance(error, OSError) else None
    return full or TrackingError(where, expected="an answer", found=found, fix="See that it runs, then try again.")


def store_uri(uri: str) -> str:
    """``uri`` as MLflow takes it. Raises ConfigError for a store that MLflow cannot open: it would try for minutes."""
    uri = uri.strip()
    scheme = uri.partition(":")[0].partition("+")[0].lower()
    where = f"tracking.uri or MLFLOW_TRACKING_URI, {uri}"
    if scheme in ("http", "https"):
        if not re.match(r"https?://[^/]", uri, re.I):
            raise ConfigError(where, expected="http://HOST:PORT", found=uri, fix="Write it whole.")
        _require_address(where, uri)
        for kind, proxy in getproxies_environment().items():
            if kind in (scheme, "all"):
                _require_address(f"{kind.upper()}_PROXY", proxy if "://" in proxy else f"http://{proxy}")
        return uri.rstrip("/")
    if scheme not in _SCHEMES:
        raise ConfigError(
            where, expected="an MLflow server (http://...) or database (sqlite:///FILE, postgresql://...)",
            found="a directory, which MLflow no longer writes to" if "://" not in uri or scheme == "file" else scheme,
            fix="Take sqlite:///FILE; `mlflow migrate-filestore` moves old runs there.",
        )  # fmt: skip
    if scheme == "sqlite":
        _require_sqlite(where, uri)
    elif scheme in ("postgresql", "mysql", "mssql"):
        _require_driver(where, uri)
    return uri


def _require_address(where: str, url: str) -> None:
    """A mistake in an address would be told as a server's silence, which passes, and tried again for ever."""
    try:
        parts = urlsplit(url)
        plain = (
            parts.hostname and (parts.port is None or parts.port > 0) and not re.search(r"\s|%(?!25)", parts.hostname)
        )
    except ValueError as error:
        found = str(error)
    else:
        if plain:
            return
        found = url
    raise ConfigError(where, expected="http://HOST:PORT", found=found, fix="Write it whole, without blanks.")


def _require_driver(where: str, uri: str) -> None:
    try:
        make_url(uri).get_dialect().import_dbapi()
    except ImportError as error:
        fix = "Install it, or name another driver, such as postgresql+psycopg://."
        raise ConfigError(where, expected="an installed database driver", found=str(error), fix=fix) from None
    except (ArgumentError, ValueError) as error:
        raise ConfigError(where, expected="a database URL", found=str(error), fix="Write it whole.") from None


def _require_sqlite(where: str, uri: str) -> None:
    try:
        file = make_url(uri).database or ""
    except ArgumentError:
        raise ConfigError(where, expected="sqlite:///FILE", found=uri, fix="Write it whole.") from None
    found = None
    above = next((str(place) for place in Path(file or ".").absolute().parents if place.exists()), "/")
    if os.path.isdir(file):
        found = "a directory"
    elif not os.path.exists(file) and not (os.path.isdir(above) and os.access(above, os.W_OK)):
        found = f"{above}, where nothing can be made"
    elif file and not os.path.exists(file):
        try:  # as MLflow would: file systems such as /proc tell only so that nothing can be made
            os.makedirs(os.path.dirname(os.path.abspath(file)), exist_ok=True)
        except OSError as error:
            found = f"{above}, where nothing can be made ({error.strerror})"
    elif os.path.isfile(file) and os.access(file, os.R_OK):
        with open(file, "rb") as opened:
            if opened.read(16) not in (b"", b"SQLite format 3\0"):
                found = "a file of another kind"
    if found is not None:
        raise ConfigError(where, expected="an SQLite database, or none yet", found=found, fix="Name another file.")


def artifact_folder(experiment: str) -> str:
    """A folder name for an experiment, of letters that every file system and URL takes; no two experiments share one.

    Plain lower-case names stand for themselves. Others get a digest behind ``~``, which no plain name holds: names may
    be paths (``/Shared/team/ctr``), and some file systems take A and a for one.
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,99}", experiment):
        return experiment
    digest = hashlib.sha256(experiment.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', experiment).strip('-')[:60]}~{digest}"


def artifact_place(experiment: str, workspace: str) -> str | None:
    """Where a new experiment's artifacts go if the store is a database of this machine: below a local workspace, beside
    the database where the workspace is none."""
    uri = str(mlflow.get_tracking_uri())
    if not uri.startswith("sqlite"):
        return None
    place = workspace if store.is_local(workspace) else os.path.dirname(os.path.abspath(make_url(uri).database or ""))
    return store.file_uri(os.path.join(place, "artifacts", artifact_folder(experiment)))


_PLACES = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location",
           "model_versions": "storage_location"}  # fmt: skip
"""Columns in which MLflow keeps absolute places of artifacts."""


def follow_move(file: str, workspace: str) -> None:
    """Let a workspace's own database find its artifacts where the workspace is now.

    MLflow has no way to move them: what is logged after a move would go to the former place, and nothing be found.
    """
    try:
        with closing(sqlite3.connect(file, timeout=30)) as database, database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            if "experiments" not in tables:
                return
            rows = list(database.execute("SELECT name, artifact_location FROM experiments"))
            for before, now in _moves(rows, workspace).items():
                for table in tables & set(_PLACES):
                    place = _PLACES[table]
                    change = f"UPDATE {table} SET {place} = ? || substr({place}, ?) WHERE substr({place}, 1, ?) = ?"  # noqa: S608
                    database.execute(change, (now, len(before) + 1, len(before), before))
    except sqlite3.Error as error:
        raise trouble(error) from error


def _moves(experiments: Iterable[tuple[str, str | None]], workspace: str) -> dict[str, str]:
    """Former and present place of what lies below ``artifacts``, of experiments that this project made."""
    found = {}
    for name, location in experiments:
        now, own = artifact_place(name, workspace), f"/artifacts/{artifact_folder(name)}"
        if now is not None and location is not None and location != now and location.endswith(own):
            before = location.removesuffix(own)
            former = unquote(before.removeprefix("file://"))
            if not (os.path.exists(former) and os.path.samefile(former, workspace)):
                found[f"{before}/artifacts/"] = f"{store.file_uri(workspace)}/artifacts/"
    return found
