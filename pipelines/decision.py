"""Every decision on a champion, kept twice: in sealed files of the workspace, only ever added, and in the registry.

    <workspace>/decisions/<time>-<version>.json    one decision, written once
    fieldwise.decision.<time>                      tag of the version it was about, the same as JSON
    fieldwise.decision, .parent, champion.logloss  tags and metrics of the run that trained the version

A promotion and a rollback carry their tag within the move of the champion (``training.tracking.registry``), so none is
without a record, wherever it was killed. Scores name their ``model_version``: its line in ``fieldwise history`` says
who made it the champion, when, on which day's data and against what.
"""

from __future__ import annotations

import getpass
import math
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, TrackingError
from fieldwise.features.redact import redacted_tree
from fieldwise.features.schema import Strict
from fieldwise.features.store import bounded
from fieldwise.features.store.kept import digest_of, read_record, sealed
from fieldwise.features.terminal import warn
from fieldwise.features.words import complaint
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.registry import registry
from fieldwise.training.tracking.journal import flat

TAG = "fieldwise.decision"
Verb = Literal["promoted", "kept", "refused", "forced", "rolled back"]
_MOST_TAG, _MOST_WORDS = 3_000, 500
"""Characters of a decision in the registry, whose stores take 5,000 in a tag: metrics go first, then long words."""
_FIX = "Move it away: what it said of the registry is also in the version's tags."


class Decision(Strict):
    """What was decided, on what, by whom. Versions are those of the registered model."""

    decision: Verb
    time: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]
    """UTC, ISO 8601 to the microsecond."""
    champion: str | None = None
    """The version that stood."""
    challenger: str | None = None
    """The version that was judged; None where none was registered, and of rollbacks."""
    now: str | None = None
    """The version that stands since."""
    date: str | None = None
    """Day of the data that it follows from."""
    parent: str | None = None
    """Model whose weights the challenger started from."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """``champion``, ``challenger``: each metric on the day with its standard error (``_se``); ``pooled``, ``today`` and
    ``<n> days ago``: both models' metrics, their difference and its interval."""
    findings: list[str] = Field(default_factory=list)
    """What the gate found, in words."""
    reason: str | None = None
    """A person's, or of a promotion by the gate what passed."""
    config: str
    """Digest of the config, defaults and overrides included."""
    who: str
    """user@host, or the scheduler's run."""

    @property
    def stamp(self) -> str:
        """The time, as names of files and tags take it."""
        return self.time.replace("-", "").replace(":", "")

    @property
    def tags(self) -> dict[str, str]:
        """For the version that it is about."""
        text = self.model_dump_json(exclude_defaults=True)
        if len(text) > _MOST_TAG:
            words = [each[:_MOST_WORDS] for each in self.findings[:3]]
            short: dict[str, Any] = {
                "metrics": {},
                "findings": words,
                "reason": self.reason and self.reason[:_MOST_WORDS],
            }
            text = self.model_copy(update=short).model_dump_json(exclude_defaults=True)
        return {f"{TAG}.{self.stamp}": text}


def decide(
    config: Config, decision: Verb, *, champion: str | None, challenger: str | None = None, **more: Any
) -> Decision:
    """A ``Decision`` of this moment and process; ``more`` are its other keys. Nothing is done or written."""
    now = challenger if decision in ("promoted", "forced") else champion
    time = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    who, digest = _who(), digest_of(config.unexpanded())
    keys = {"now": now, "time": time, "who": who, "config": digest, **more}
    return Decision(
        **redacted_tree(_finite({"decision": decision, "champion": champion, "challenger": challenger, **keys}))
    )


def _finite(value: Any) -> Any:
    """``value`` with None for numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _who() -> str:
    dag = os.environ.get("AIRFLOW_CTX_DAG_ID")
    if dag:
        return f"airflow {dag} {os.environ.get('AIRFLOW_CTX_DAG_RUN_ID', '')}".strip()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # containers run under numbers that have no name
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def record_decision(config: Config, decision: Decision) -> str:
    """Add a decision to the workspace's record, and to the version and run that it is about; returns the file's path.

    Twice is once. Raises TrackingError when the registry is silent: the file is there then.
    """
    about = decision.champion if decision.decision == "rolled back" else decision.challenger or decision.champion
    path = store.join(_folder(config), f"{decision.stamp}-{about or 'none'}.json")
    content = sealed(decision.model_dump())
    try:
        store.create_exclusive(path, content)
    except FileExistsError:
        if store.read_bytes(path) != content:
            raise ArtifactError(
                path, expected="this decision or none", found="another one", fix="Run it again."
            ) from None
    if about is not None:
        run, metrics = {}, {}
        if decision.challenger is not None:
            facts = {
                "": decision.decision,
                ".champion": decision.champion,
                ".date": decision.date,
                ".reason": decision.reason,
            }
            run = {f"{TAG}{key}": value[:_MOST_WORDS] for key, value in facts.items() if value}
            before = decision.champion and f"models:/{config.model_name}/{decision.champion}"
            if parent := decision.parent or before:
                run["fieldwise.parent"] = parent
            metrics = {name: value for name, value in flat(decision.metrics) if isinstance(value, float)}
        moment = round(1000 * datetime.fromisoformat(decision.time.replace("Z", "+00:00")).timestamp())
        registry(config).note(about, decision.tags, run=run, metrics=metrics, time=moment)
    return path


def record_first_champion(config: Config, version: str, metrics: Mapping[str, Any]) -> None:
    """Record that a version became champion as it was registered, because there was none; again, nothing is added.

    Args:
        metrics: the version's own.

    Raises TrackingError when the registry is silent.
    """
    if registry(config).history():
        return  # another one has led before: this one came back, by a decision that has its record
    known = next((each for each in _kept(config) if (each.champion, each.now) == (None, version)), None)
    if known is None:
        why, own = "there was no champion", {"challenger": metrics}
        known = decide(config, "promoted", champion=None, challenger=version, metrics=own, reason=why)
    record_decision(config, known)


def decisions_of(config: Config) -> list[Decision]:
    """Those of the workspace's files and of the registry's tags, oldest first. ArtifactError for a damaged file."""
    found = {(each.time, each.champion, each.challenger): each for each in [*_told(config), *_kept(config)]}
    return sorted(found.values(), key=lambda each: each.time)


def any_decision(config: Config) -> bool:
    """Whether the workspace holds any."""
    return bool(_files(config))


def _files(config: Config) -> list[str]:
    names = sorted(store.list_sizes(_folder(config)))
    return [store.join(_folder(config), name) for name in names if name.endswith(".json") and not name.startswith(".")]


def _kept(config: Config) -> list[Decision]:
    """Of the workspace."""
    what = "a decision, as it was recorded"
    return [_read(read_record(path, what, _FIX, newer=("decision",)) or {}, path) for path in _files(config)]


def _told(config: Config) -> list[Decision]:
    """Of the registry; none, with a warning, where it is silent."""
    try:
        texts = registry(config).notes(f"{TAG}.")
    except TrackingError as error:
        warn(f"only what the workspace holds: {error}")
        return []
    where = f"models:/{config.model_name}, a tag {TAG}.*"
    return [_read(bounded.parse(text.encode(), where, "Delete or mend the tag."), where) for text in texts]


def _read(value: Mapping[str, Any], where: str) -> Decision:
    try:
        return Decision.model_validate(value)
    except ValidationError as error:
        found = complaint(error, Decision)
        raise ArtifactError(where, expected="a decision, as it was recorded", found=found, fix=_FIX) from error


def _folder(config: Config) -> str:
    return store.join(config.workspace_dir, "decisions")
