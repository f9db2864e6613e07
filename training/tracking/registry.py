"""The model registry: versions of a model, the aliases ``champion`` and ``challenger``, and how the champion moves.

A move (``promote``, ``rollback``) is one write, or repaired: all that shall be true after it goes into the registered
model's tag ``fieldwise.move`` first, then to alias and tags, and whoever moves next finishes what was interrupted.

- Processes that share a workspace move one after the other, under a lock: what a move was decided on is still
  true when it is made.
- Stores compare nothing for us, so between machines there is no lock: the tag is read again once it is written, and the
  alias once it has moved. Of two moves within the same moments the state is that of one of them, and the other is told,
  unless it had read before the first wrote: then the later one stands.
"""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from functools import partial
from typing import Any

import mlflow
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, BusyError, RefusedError
from fieldwise.features.store.lock import locked
from fieldwise.training.tracking.mlflow_store import artifact_folder, ask, tell, trouble
from fieldwise.training.tracking.own_database import ALIASES, REFERENCE, Registered

HISTORY, DATE, MOVE = "champion_history", "fieldwise.promoted_date", "fieldwise.move"
"""Tags of the registered model: former champions, latest last; the last day that one was promoted for; a move."""
REJECTED = "fieldwise.rejected"
"""Tag of a version that was rolled back, or refused when it was to be promoted: why."""
MOST_FORMER = 50
"""Former champions that are remembered: stores take tags of 5,000 characters."""


class Registry:
    """One registered model of the store that ``runs.connect`` has opened; moves take turns in a workspace."""

    def __init__(self, name: str, workspace: str) -> None:
        self.name, self._workspace = name, workspace

    def register(
        self, model_uri: str, *, may_lead: bool = True, tags: Mapping[str, str] | None = None, description: str = ""
    ) -> dict[str, Any]:
        """Register a logged model, once, with tags and a description (Markdown); say who has the aliases then.

        It becomes ``challenger`` unless a newer version is; ``champion`` only where there is none and it ``may_lead``.
        """

        def version_made() -> str:
            there = [found for found in self._versions() if found.source == model_uri]
            with redirect_stderr(io.StringIO()):  # MLflow prints what we say better
                made = there[0] if there else mlflow.register_model(model_uri, self.name, tags=dict(tags or {}))
            if description and made.description != description:
                MlflowClient().update_model_version(self.name, made.version, description=description)
            return str(made.version)

        version = tell(version_made)

        def pointed() -> None:
            client, standing = MlflowClient(), self.version_of("challenger")
            if standing is None or int(standing) < int(version):
                client.set_registered_model_alias(self.name, "challenger", version)
            if may_lead and self.version_of("champion") is None:
                client.set_registered_model_alias(self.name, "champion", version)

        tell(pointed)
        return {"model": self.name, "version": version, **{alias: self.version_of(alias) for alias in ALIASES}}

    def version_of(self, alias: str) -> str | None:
        """Version an alias stands for; None when model or alias is unknown."""
        return _version_of(self.name, alias)

    def promote(
        self,
        version: str | None = None,
        *,
        expected: str | None = None,
        date: str | None = None,
        anew: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make ``version`` (default: the challenger) the champion and remember the former one. Again, with the same
        tags, nothing changes.

        Args:
            expected: the champion that ``version`` was measured against; None takes any.
            date: the day that the decision follows from.
            anew: promote a rejected version, too.
            tags: what the version is to be told with it, such as the decision.

        Raises:
            ArtifactError: no such version.
            BusyError: the champion is another one now.
            RefusedError: the version was rejected, or a later day has decided.
        """
        with self._moving():
            wanted = version or self.version_of("challenger")
            if wanted is None:
                raise absent(f"models:/{self.name}@challenger", "Train first.")
            found = _version(self.name, wanted)
            if found is None:
                raise absent(f"models:/{self.name}/{wanted}", "Name a registered version.")
            champion, past = self.version_of("champion"), self.history()
            told_before = bool(tags) and set((tags or {}).items()) <= set(found.tags.items())
            if champion == wanted or told_before:  # by the same decision, whatever was decided since
                return {"model": self.name, "champion": champion, "former": past[-1] if past else None}
            self.require_champion(expected)
            why = found.tags.get(REJECTED)
            if why is not None and not anew:
                fix = f"To bring it back all the same: `fieldwise promote --version {wanted}`."
                where = f"models:/{self.name}/{wanted}"
                raise RefusedError(
                    where, expected="a version that was not rejected", found=f"one that was: {why}", fix=fix
                )
            last = self._tags().get(DATE)
            if date is not None and last is not None and date < last:
                told = f"a day from {last} on, for which a champion was promoted"
                fix = "What later days decided stands; `fieldwise promote --version` promotes whatever the day."
                raise RefusedError(f"models:/{self.name}/{wanted}", expected=told, found=date, fix=fix)
            past += [champion] if champion else []
            told_version = {**(tags or {}), REJECTED: None}
            self._move(
                {"champion": wanted, "history": past[-MOST_FORMER:], "date": date, "tags": {wanted: told_version}}
            )
        return {"model": self.name, "champion": wanted, "former": champion}

    def rollback(
        self, *, expected: str | None = None, reason: str = "rolled back", tags: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Give the champion alias back to the ``former`` champion, and mark this one as rejected.

        Raises ArtifactError where there is no former one, BusyError where the champion is not the ``expected`` one.
        """
        with self._moving():
            champion, restored = self.version_of("champion"), self.former()
            self.require_champion(expected)
            past = self.history()
            past = past[: len(past) - 1 - past[::-1].index(restored)]
            told = {champion: {**(tags or {}), REJECTED: reason[:500]}} if champion else {}
            self._move({"champion": restored, "history": past, "date": None, "tags": told})
        return {"model": self.name, "champion": restored, "former": champion}

    def former(self) -> str:
        """The version that a rollback restores: the last former champion that is still registered.

        Raises ArtifactError where there is none.
        """
        champion, past = self.version_of("champion"), self.history()
        for version in reversed(past):
            if version != champion and ask(partial(MlflowClient().get_model_version, self.name, version)) is not None:
                return version
        found = f"none: {', '.join(past)} deleted" if past else "none recorded"
        fix = "Name one that stands: `fieldwise promote --version`." if past else "Only a promotion can be undone."
        raise ArtifactError(f"models:/{self.name}", expected="a former champion", found=found, fix=fix)

    def history(self) -> list[str]:
        """Former champions' versions, latest last. ArtifactError where the tag that keeps them holds something else."""
        versions = _read(self._tags().get(HISTORY, "[]"))
        if not isinstance(versions, list) or not all(isinstance(each, str) and each.isdigit() for each in versions):
            raise self._damaged(HISTORY, "former versions as JSON")
        return versions

    def require_champion(self, expected: str | None) -> None:
        """Raises BusyError where the champion is another version than the ``expected`` one, if any is."""
        champion = self.version_of("champion")
        if expected is not None and champion != expected:
            raise BusyError(
                f"models:/{self.name}@champion", expected=f"version {expected}, against which was decided",
                found=f"version {champion}" if champion else "none",
                fix="Another decision came first and stands. Run it again: it decides against the champion of then.",
            )  # fmt: skip

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Alone in the workspace, and once an interrupted move is finished."""
        with self._lock():
            kept = self._tags().get(MOVE)
            if kept is not None:
                move = _read(kept)
                if not (isinstance(move, dict) and {"champion", "history", "date", "tags"} <= set(move)):
                    raise self._damaged(MOVE, "an interrupted move as JSON")
                if ask(lambda: MlflowClient().get_model_version(self.name, move["champion"])) is None:
                    ask(lambda: MlflowClient().delete_registered_model_tag(self.name, MOVE))  # deleted since
                else:
                    self._finish(move)
            yield

    def _lock(self) -> Any:
        folder = store.join(self._workspace, "decisions")
        store.make_dir(folder)
        path = store.join(folder, f"{artifact_folder(self.name)}.lock")
        expected, fix = "one move of the champion at a time", "Wait for it, then run this again."
        return locked(path, f"models:/{self.name}", expected=expected, fix=fix)

    def _move(self, move: Mapping[str, Any]) -> None:
        text = json.dumps({"id": uuid.uuid4().hex, **move})
        tell(lambda: MlflowClient().set_registered_model_tag(self.name, MOVE, text))
        if self._tags().get(MOVE) == text:
            self._finish(move)
            if self.version_of("champion") == move["champion"]:
                return
        raise BusyError(
            f"models:/{self.name}", expected="one move of the champion at a time", found="another machine at it",
            fix="Run it again: it decides on the champion that stands then.",
        )  # fmt: skip

    def _finish(self, move: Mapping[str, Any]) -> None:
        """All of a move, done or not: each write leaves what the move says, however often it is made."""
        client = MlflowClient()
        for version, tags in move["tags"].items():
            for key, value in tags.items():
                if value is None:
                    ask(partial(client.delete_model_version_tag, self.name, version, key))
                else:
                    ask(partial(client.set_model_version_tag, self.name, version, key, value))
        tell(lambda: client.set_registered_model_alias(self.name, "champion", move["champion"]))
        tell(lambda: client.set_registered_model_tag(self.name, HISTORY, json.dumps(move["history"])))
        if move["date"] is not None:
            tell(lambda: client.set_registered_model_tag(self.name, DATE, move["date"]))
        ask(lambda: client.delete_registered_model_tag(self.name, MOVE))

    def reject(self, version: str, why: str) -> None:
        """Mark a version: it is promoted only by a person who names it."""
        ask(lambda: MlflowClient().set_model_version_tag(self.name, version, REJECTED, why[:500]))

    def note(
        self, version: str, tags: Mapping[str, str], *, run: Mapping[str, str], metrics: Mapping[str, float], time: int
    ) -> None:
        """Tell a version, and the run that trained it, if they are still there. Twice is once.

        Args:
            tags: of the version.
            run: tags of its run.
            metrics: of its run, at ``time`` (milliseconds since 1970).
        """
        found = ask(lambda: MlflowClient().get_model_version(self.name, version))
        if found is None:
            return
        for key, value in tags.items():
            ask(partial(MlflowClient().set_model_version_tag, self.name, version, key, value))
        if found.run_id:
            values = [Metric(key, value, time, 0) for key, value in metrics.items()]
            told = [RunTag(key, value) for key, value in run.items()]
            ask(lambda: MlflowClient().log_batch(found.run_id, metrics=values, tags=told))

    def notes(self, prefix: str) -> list[str]:
        """Values of all versions' tags whose names begin so, by name."""
        told = {(key, v.version): text for v in tell(self._versions) for key, text in v.tags.items()}
        return [text for (key, _), text in sorted(told.items()) if key.startswith(prefix)]

    def unaliased(self) -> dict[str, datetime]:
        """Versions that no alias names and no rollback would restore, and when they were made (UTC). Raises
        TrackingError when the store is silent: nothing is free then."""
        model = ask(lambda: MlflowClient().get_registered_model(self.name))
        if model is None:
            return {}
        past, there = self.history(), {str(each.version): each for each in tell(self._versions)}
        former = next((version for version in reversed(past) if version in there), None)
        named = {*(str(version) for version in model.aliases.values()), former}
        made = {version: datetime.fromtimestamp(each.creation_timestamp / 1000, UTC)
                for version, each in there.items()}  # fmt: skip
        return {version: made[version] for version in sorted(there, key=int) if version not in named}

    def held(self, version: str) -> str | None:
        """Why a version cannot be removed, if it cannot: another registered model stands for the same one, or its files
        lie where MLflow keeps no model's, so that removing them could take others."""
        client = MlflowClient()
        found = ask(lambda: client.get_model_version(self.name, version))
        if found is not None and found.run_id:
            for other in tell(lambda: client.search_model_versions(f"run_id = '{found.run_id}'")):
                if other.source == found.source and (other.name, str(other.version)) != (self.name, version):
                    return f"models:/{other.name}/{other.version} is the same model"
        model = self._logged(version)
        if model is None or str(model.artifact_location).endswith(f"/models/{model.model_id}/artifacts"):
            return None
        return f"its files lie in {model.artifact_location}, where MLflow keeps no model's"

    def remove(self, version: str) -> None:
        """Delete a version that nothing holds and the logged model behind it, its files first: what a kill leaves is
        found again.

        The run stays, with its parameters, metrics and plots. Raises TrackingError when the store is silent or cannot
        delete files.
        """
        client, model = MlflowClient(), self._logged(version)
        if model is not None:
            tell(lambda: get_artifact_repository(model.artifact_location).delete_artifacts())
            tell(lambda: client.delete_logged_model(model.model_id))
        ask(lambda: client.delete_model_version(self.name, version))

    def _logged(self, version: str) -> Any:
        """The logged model that a version stands for; None where that is gone, or was logged otherwise."""
        found = ask(lambda: MlflowClient().get_model_version(self.name, version))
        named = re.fullmatch(r"models:/(m-[0-9a-f]+)", "" if found is None else str(found.source))
        return None if named is None else ask(lambda: MlflowClient().get_logged_model(named[1]))

    def _versions(self) -> list[Any]:
        quote = '"' if "'" in self.name else "'"
        return list(MlflowClient().search_model_versions(f"name = {quote}{self.name}{quote}"))

    def _tags(self) -> dict[str, str]:
        found = ask(lambda: MlflowClient().get_registered_model(self.name))
        return {} if found is None else dict(found.tags)

    def _damaged(self, tag: str, expected: str) -> ArtifactError:
        fix = f"Delete or mend the tag {tag} of the registered model."
        found = repr(self._tags().get(tag, "")[:80])
        return ArtifactError(f"models:/{self.name}", expected=expected, found=found, fix=fix)

    def snapshots_in_use(self, experiment: str) -> dict[str, str]:
        """Digests of snapshots that the model's aliased versions and an experiment's running trainings use, with a
        reason.

        A training that was killed counts as running until its run is ended or resumed. Raises TrackingError when the
        store is silent: nothing is free then.
        """
        runs = {}
        found = tell(lambda: MlflowClient().get_experiment_by_name(experiment))
        if found is not None:
            for run in tell(lambda: MlflowClient().search_runs([found.experiment_id], "attributes.status = 'RUNNING'")):
                runs[run.info.run_id] = f"run {run.info.run_id} is training on it"
        model = ask(lambda: MlflowClient().get_registered_model(self.name))
        for alias, version in ({} if model is None else model.aliases).items():
            run_id = tell(partial(MlflowClient().get_model_version, self.name, version)).run_id
            runs[run_id] = f"models:/{self.name}@{alias} comes from it"
        used: dict[str, str] = {}
        for run_id, reason in runs.items():
            params = tell(partial(MlflowClient().get_run, run_id)).data.params
            used |= {digest: reason for key, digest in params.items() if key.startswith("snapshots.")}
        return used


def find(reference: str) -> Registered | None:
    """The version that ``models:/NAME@alias`` or ``models:/NAME/3`` stands for now; None for other references.

    Raises:
        ArtifactError: no such model, alias or version.
    """
    match = re.fullmatch(REFERENCE, reference)
    if match is None:
        return None
    name, alias, version = match.groups()
    if version is None:
        version = _version_of(name, alias)
    found = None if version is None else _version(name, version)
    if found is None:
        raise absent(reference, "Train one first (`fieldwise train`: the first becomes the champion), or name another.")
    return Registered.of(name, str(found.version), alias, found.aliases)


def _version(name: str, version: str) -> Any:
    """None where there is no such version; databases do not take longer numbers."""
    return None if len(version) > 18 else ask(lambda: MlflowClient().get_model_version(name, version))


def _version_of(name: str, alias: str) -> str | None:
    found = ask(lambda: MlflowClient().get_model_version_by_alias(name, alias))
    if found is not None and not str(found.version).isdigit():
        raise trouble(MlflowException(f"a version {found.version!r}"))
    return None if found is None else str(found.version)


def _read(text: str) -> Any:
    """JSON; None for anything else."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def absent(reference: str, fix: str) -> ArtifactError:
    """The error of a reference that stands for nothing."""
    found = f"nothing of that name in {mlflow.get_tracking_uri()}"
    return ArtifactError(reference, expected="a registered model", found=found, fix=fix)
