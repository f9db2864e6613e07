"""A pipeline in Python: the commands' own functions, with tables in and small objects out."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from fieldwise.api.calls import call
from fieldwise.api.documents import config_of, overrides_of
from fieldwise.api.frames import arrow, ids_of, publish
from fieldwise.api.results import (
    CatalogTables,
    Evaluation,
    Explanation,
    Importance,
    Lists,
    ListsEvaluation,
    Snapshot,
    Training,
)
from fieldwise.features import store
from fieldwise.features.errors import ConfigError
from fieldwise.features.terminal import hushed
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config

if TYPE_CHECKING:
    from fieldwise.api.model import Model


class Pipeline:
    """One pipeline: its data, its model, its workspace.

        fw.Pipeline("shop.yaml")
        fw.Pipeline("shop.yaml", training={"epochs": 3})
        fw.Pipeline({"name": "shop", "source": {"path": "log.csv"}, ...})
        fw.Pipeline(name="shop", source={"path": "log.csv"}, ...)

    Keys are those of docs/config.md. A config that is no file is written into its workspace, ``work/<name>`` unless it
    names another, as ``pipeline.yaml``; relative paths in it count from the current directory. Calls import Spark,
    torch and MLflow when they need them.

    Attributes: ``config``; ``trained``, what the last ``train`` of this object gave, None before.

    Raises ConfigError for a config that cannot be meant.

    Examples:
        >>> fw.Pipeline("work/shop/pipeline.yaml", training={"epochs": 3}).config.training.epochs
        3
    """

    def __init__(self, config: str | os.PathLike[str] | Mapping[str, Any] | None = None, /, **keys: Any) -> None:
        with call():
            self.config: Config = config_of(config, keys)
        self.trained: Training | None = None
        self._model: Model | None = None

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def workspace(self) -> str:
        """Absolute directory or URL."""
        return self.config.workspace_dir

    def __repr__(self) -> str:
        fields = ", ".join(field.name for field in self.config.fields)
        trained = "" if self.trained is None else f"; trained {self.trained.kind}, {self.trained.model}"
        return f"fieldwise.Pipeline({self.name} in {self.workspace}; fields {fields}{trained})"

    def features(
        self, *, date: str | None = None, spec: str | None = None, replace: bool = False, against: str | None = None
    ) -> Snapshot:
        """Encode the log into a published snapshot (``fieldwise features``). What stands already is not built again."""
        from fieldwise.pipelines.build.features import build_features

        with call("features"):
            return Snapshot.of(build_features(self.config, date=date, spec=spec, replace=replace, against=against))

    def train(
        self,
        kind: str | None = None,
        *,
        ranks: int = 1,
        train: Sequence[str] = (),
        valid: Sequence[str] = (),
        test: Sequence[str] = (),
        init: str | None = None,
        name: str | None = None,
        register: bool = True,
        force: bool = False,
        **keys: Any,
    ) -> Training:
        """Train a model on snapshots and register it (``fieldwise train``): ``train("fm", training={"epochs": 3})``.

        Args:
            kind: lr, poly2, fm, ffm, fwfm, deepfm, or auto for the best of the first four; default: the config's.
            ranks: training processes on this machine.
            train: snapshot directories to train on; default: the workspace's ``all``, by its own splits.
            valid: to validate on.
            test: to test on.
            keys: over the config's, for this training.

        Later calls of this object use the model, whoever is champion. Raises RefusedError where the model is no better
        than the rate of positives.
        """
        from fieldwise.pipelines.ranks.launch import Days
        from fieldwise.pipelines.train.family import train_best

        more = overrides_of(keys) + ([] if kind is None else [f"model.kind={kind}"])
        with call("train"):
            config, days = self._with(more), Days(list(train), list(valid), list(test))
            told = train_best(config, ranks, days, init=init, register=register, force=force, name=name) or {}
            self.trained, self._model = Training.of(told), None
        return self.trained

    def evaluate(
        self, role: str = "test", *, model: str | None = None, snapshots: Sequence[str] | None = None
    ) -> Evaluation:
        """Metrics of a model on the rows of a role (``fieldwise evaluate``).

        Examples:
            >>> shop.evaluate("valid").auc > 0.6
            True
        """
        from fieldwise.pipelines.train.evaluate import evaluate_model

        with call("evaluate"):
            paths = None if snapshots is None else list(snapshots)
            return Evaluation.of(evaluate_model(self.config, snapshots=paths, model=self._named(model), role=role))

    def model(self, reference: str | None = None) -> Model:
        """A model to predict with: what this object trained last, else the champion, or one by name."""
        from fieldwise.api.model import Model
        from fieldwise.pipelines.agreement import require_model
        from fieldwise.pipelines.registry import open_model

        if reference is None and self._model is not None:
            return self._model
        with call():
            opened = open_model(self._named(reference), self.config)
            require_model(opened.bundle, self.config, reference or "the model", own_source=False)
            found = Model(opened, self.config)
        if reference is None and self.trained is not None:
            self._model = found
        return found

    def predict(self, frame: Any, *, model: str | None = None) -> Any:
        """Probabilities of the rows of a table with the log's columns; see ``Model.predict``.

        Examples:
            >>> p = shop.predict(df.head(3))
            >>> list(p.index), bool(p.between(0, 1).all())
            ([0, 1, 2], True)
        """
        return self.model(model).predict(frame)

    def explain(
        self,
        row: Any = None,
        *,
        context: str | None = None,
        item: str | None = None,
        date: str | None = None,
        model: str | None = None,
    ) -> Explanation:
        """Why a row has its probability (see ``Model.explain``), or a pair of the catalog: the ids of both sides.

        Default: the first row of the log.

        Examples:
            >>> why = shop.explain(df.iloc[0])
            >>> abs(why.bias + sum(term["logit"] for term in why.terms) - why.logit) < 1e-6
            True
        """
        if row is not None and context is None and item is None:
            return self.model(model).explain(row)
        from fieldwise.pipelines.score.explain import explain_rows

        if row is not None:
            raise ConfigError("explain", expected="a row or a pair", found="both", fix="Leave one of them out.")
        with call():
            told = explain_rows(self.config, model=self._named(model), context=context, item=item, date=date)
            return Explanation.of(told["rows"][0])

    def importance(self, role: str = "test", *, model: str | None = None) -> Importance:
        """What the logits of a model follow from: shares of fields and pairs of fields, on rows of a role.

        Examples:
            >>> found = shop.importance()
            >>> list(found.pairs)[0]  # users like items, each their own
            ('user', 'item')
        """
        from fieldwise.pipelines.score.explain import explain_model

        with call("explain"):
            return Importance.of(explain_model(self.config, model=self._named(model), role=role))

    def top_k(
        self,
        contexts: Any = None,
        k: int | None = None,
        *,
        items: Any = None,
        model: str | None = None,
        date: str | None = None,
        **catalog: Any,
    ) -> Lists:
        """The exact best ``k`` items for every context (``fieldwise score-catalog``).

        Args:
            contexts: a table, one row each, or ids - a list, a column, one alone - where side tables know the rest;
                default: the config's ``catalog.contexts``.
            k: default: the config's.
            items: a table of what is ranked; default: the config's ``catalog.items``.
            catalog: further keys of the config's ``catalog`` block, such as ``context_id="user"``,
                ``fixed={"position": 1}`` or ``time="2026-01-31T19:00:00"``, which may be a datetime.

        A table's first column names its rows where the config names no ``context_id`` or ``item_id``.

        Examples:
            >>> found = shop.top_k(["u1", "u2"], 3, items=items, context_id="user", time="2026-01-05T19:00:00")
            >>> len(found.of("u1")), found.told["different"]["lists"]
            (3, 2)
        """
        from fieldwise.pipelines.catalog.score_catalog import score_catalog

        with call("score-catalog"):
            given = _catalog_of(self.config, contexts, items, catalog if k is None else {**catalog, "k": k})
            with self._staged(given) as (config, staging):
                chosen = self._named(model)
                if given is None:
                    told = score_catalog(config, model=chosen, date=date)
                    return Lists(told, *_published(told))
                with hushed():  # it would name places that go with the call
                    told = score_catalog(config, model=chosen, date=date, out=store.join(staging, "lists"))
                stays = {key: value for key, value in told.items() if key not in ("dir", "report")}
                return Lists(stays, *_published(told), given)

    def evaluate_lists(
        self, lists: Lists | None = None, *, date: str | None = None, first: str | None = None, last: str | None = None
    ) -> ListsEvaluation:
        """Lists beside the most popular items and random ones, by what happened on days that the log holds
        (``fieldwise evaluate-lists``).

        Args:
            lists: of ``top_k``; default: those that stand published.
            date: of the lists, where they are of a day.
            first: day to measure on; default: the first that training has neither learned from nor stopped by, or the
                one after ``date``.
            last: default: the last such day, or ``first``.

        Examples:
            >>> found = shop.evaluate_lists(shop.top_k(users, 10, items=items, time="2026-01-20T19:00:00"))
            >>> set(found.metrics["recall@10"])
            {'lists', 'popularity', 'random', 'over_popularity', 'over_random'}
        """
        from fieldwise.pipelines.lists.asked import by_training
        from fieldwise.pipelines.lists.evaluate_lists import evaluate_lists

        with call("evaluate-lists"):
            if first is None and date is None:
                _, unseen = by_training(self.config)
                if not unseen:
                    fix = 'Name them: first="YYYY-MM-DD", last="YYYY-MM-DD"; of rows drawn by chance there are none.'
                    expected = "days that training has not seen"
                    raise ConfigError("evaluate_lists", expected=expected, found="none known", fix=fix)
                first, last = unseen[0], last or unseen[-1]
            days = {"date": date, "first": first, "last": last}
            if lists is None or lists.catalog is None:
                return ListsEvaluation.of(evaluate_lists(self.config, **days))
            with self._staged(lists.catalog) as (config, staging):
                place = publish(lists.table, store.join(staging, "lists"), "part").rpartition("/")[0]
                with hushed():  # it would name places that go with the call
                    told = evaluate_lists(config, lists=place, out=staging, **days)
                return ListsEvaluation.of({key: value for key, value in told.items() if key != "dir"})

    @contextmanager
    def _staged(self, catalog: CatalogTables | None) -> Iterator[tuple[Config, str]]:
        """The config with a catalog of tables, which lie in a directory that goes afterwards."""
        staging = store.join(self.workspace, "python", uuid.uuid4().hex)
        if catalog is None:
            yield self.config, staging
            return
        try:
            overrides = overrides_of(catalog.keys, ("catalog",))
            for side, table in catalog.tables.items():
                block = {"path": publish(table, staging, side), "format": "parquet"}
                overrides.append(f"catalog.{side}s={json.dumps(block)}")
            # one value, not key by key: what the block says of other files goes
            yield self._with(overrides), staging
        finally:
            store.remove_tree(staging)

    def _named(self, model: str | None) -> str | None:
        return model or (None if self.trained is None else self.trained.model)

    def _with(self, overrides: Sequence[str]) -> Config:
        if not overrides:
            return self.config
        return load_config(self.config.file, [*self.config.overrides, *overrides])


def _catalog_of(config: Config, contexts: Any, items: Any, keys: Mapping[str, Any]) -> CatalogTables | None:
    """What a call says of the catalog; None where it says nothing."""
    tables, named = {}, dict(keys)
    for side, given in (("context", contexts), ("item", items)):
        if given is not None:
            own = keys.get(f"{side}_id") or getattr(config.catalog, f"{side}_id", None)
            ids = ids_of(given, own)
            table = arrow(given if ids is None else ids, f"{side}s")
            tables[side], named[f"{side}_id"] = table, own or table.column_names[0]
    return CatalogTables(tables, named) if tables or named else None


def _published(told: Mapping[str, Any]) -> tuple[pa.Table, str]:
    """Lists in the order of their files, and the page that lies beside them."""
    directory = told["dir"]
    names = sorted(name for name in store.list_sizes(directory) if name.startswith("part-"))
    parts = []
    for name in names:
        with store.opened(store.join(directory, name)) as file:
            parts.append(pq.read_table(file))
    return pa.concat_tables(parts), store.read_bytes(told["report"]).decode()
