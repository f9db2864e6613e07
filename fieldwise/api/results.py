"""What calls return: plain attributes, the whole result of the command in ``told``, tables to see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from fieldwise.features.report.chart import Picture, fragment
from fieldwise.features.terminal import printable
from fieldwise.pipelines.lists.results import beats_popularity, verdict
from fieldwise.pipelines.score.picture import picture_of
from fieldwise.pipelines.train.measured import NAMES, TABLE, with_error


class Grid(NamedTuple):
    """A table for people."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    pictures: Sequence[Picture] = ()

    def html(self) -> str:
        """Names and values may be of data: all of it is escaped."""
        return fragment(self.title, self.head, self.rows, self.pictures)

    def text(self) -> str:
        """In columns, the first to the left."""
        cells = [[printable(text) for text in row] for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(text.rjust(width) if at else text.ljust(width) for at, (text, width) in enumerate(pairs))
            for pairs in (list(zip(row, widths, strict=True)) for row in cells)
        ]
        return "\n".join([printable(self.title), *(f"  {line.rstrip()}" for line in lines)])


@dataclass(frozen=True, repr=False)
class Result:
    """``told`` is the object that the command prints."""

    told: Mapping[str, Any] = field(repr=False)

    def grids(self) -> Iterator[Grid]:
        """What people see of it."""
        yield Grid(type(self).__name__, ("", ""), [(key, str(value)) for key, value in self.told.items()])

    def __repr__(self) -> str:
        return "\n".join(grid.text() for grid in self.grids())

    def _repr_html_(self) -> str:
        return "".join(grid.html() for grid in self.grids())


@dataclass(frozen=True, repr=False)
class Snapshot(Result):
    """Published rows."""

    dir: str
    digest: str
    rows: Mapping[str, int]
    """By role."""
    positives: Mapping[str, int]
    report: str
    """The data report, an HTML page."""

    @staticmethod
    def of(told: Mapping[str, Any]) -> Snapshot:
        return Snapshot(told, told["dir"], told["digest"], told["rows"], told["positives"], told["report"])

    def grids(self) -> Iterator[Grid]:
        rows = [(r, f"{n:,}", f"{self.positives[r]:,}", f"{self.positives[r] / n:.3%}") for r, n in self.rows.items()]
        yield Grid(f"Snapshot {self.digest[:12]} in {self.dir}", ("role", "rows", "positives", "rate"), rows)


@dataclass(frozen=True, repr=False)
class Training(Result):
    """A trained model."""

    kind: str
    metrics: Mapping[str, Mapping[str, float]]
    """By role: ``training.metrics["test"]["logloss"]``; ``<metric>_se`` is its standard error."""
    model: str
    """What other calls name it by: ``models:/NAME/VERSION``, else the directory of its bundle."""
    version: str | None
    """In the registry; None where it was not registered."""
    champion: bool
    """Whether it is the one that commands use now."""

    @staticmethod
    def of(told: Mapping[str, Any]) -> Training:
        found = told["registered"] or {}
        version = found.get("version")
        model = told["bundle"] if version is None else f"models:/{found['model']}/{version}"
        leads = version is not None and found["champion"] == version
        return Training(told, told["kind"], told["metrics"], model, version, leads)

    def grids(self) -> Iterator[Grid]:
        place = f"{self.model}{', champion' if self.champion else ''}"
        yield measured(f"{self.kind}: {place}", self.metrics)


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """How good a model's probabilities are on rows of one role."""

    role: str
    rows: int
    positives: int
    metrics: Mapping[str, float]

    @staticmethod
    def of(told: Mapping[str, Any]) -> Evaluation:
        return Evaluation(told, told["role"], told["rows"], told["positives"], told["metrics"])

    @property
    def logloss(self) -> float:
        return self.metrics["logloss"]

    @property
    def auc(self) -> float:
        return self.metrics["auc"]

    @property
    def normalized_entropy(self) -> float:
        return self.metrics["normalized_entropy"]

    @property
    def calibration(self) -> float:
        return self.metrics["calibration"]

    def grids(self) -> Iterator[Grid]:
        counts = {"rows": self.rows, "positives": self.positives}
        yield measured(f"Model {self.told['model'][:12]}", {self.role: {**self.metrics, **counts}})
        if slices := self.told.get("slices"):
            head = ("slice", "rows", "rate", "logloss", "NE", "calibration")
            numbers = ("logloss", "normalized_entropy", "calibration")
            rows = [
                (s["name"], f"{s['rows']:,}", f"{s['label_rate']:.2%}", *("-" if s[n] is None else f"{s[n]:.5f}"
                 for n in numbers)) for s in slices[:20]
            ]  # fmt: skip
            yield Grid("Slices, the worst first", head, rows)


class CatalogTables(NamedTuple):
    """A catalog of tables: those of contexts and items by side, and keys of the config's ``catalog``."""

    tables: Mapping[str, pa.Table]
    keys: Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Lists(Result):
    """Ranked lists: columns context_id, rank (from 1), item_id, probability, model_version."""

    table: pa.Table
    page: str
    """Samples with names, what is listed most, what the model knows of both sides: an HTML page."""
    catalog: CatalogTables | None = field(default=None, repr=False)
    """What ``top_k`` was given in place of the config's catalog."""

    def to_pandas(self) -> Any:
        return self.table.to_pandas()

    def __len__(self) -> int:
        """Places of all lists together."""
        return int(self.table.num_rows)

    def of(self, context: Any) -> list[Any]:
        """Items of one context's list, the best first."""
        same = [str(each) == str(context) for each in self.table["context_id"].to_pylist()]
        return list(self.table.filter(pa.array(same, pa.bool_()))["item_id"].to_pylist())

    def grids(self) -> Iterator[Grid]:
        found: dict[Any, list[str]] = {}
        for row in self.table.slice(0, 1000).to_pylist():
            shown_item = f"{row['item_id']} ({row['probability']:.4f})"
            found.setdefault(row["context_id"], []).append(shown_item)
        lists = [(str(context), ", ".join(items[:5])) for context, items in list(found.items())[:5]]
        title = f"Lists of {self.told['contexts']:,} contexts over {self.told['items']:,} items"
        if (different := self.told.get("different")) is not None:
            about = "" if different["exact"] else "about "
            title += f": {about}{different['lists']:,} differ, and show {about}{different['items']:,} items"
        yield Grid(title, ("context", "first items"), lists)


@dataclass(frozen=True, repr=False)
class ListsEvaluation(Result):
    """How good lists are, beside the most popular items and random ones, on the same contexts."""

    days: Sequence[str]
    contexts: int
    """That wanted something on these days."""
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    """``metrics["recall@10"]["lists"]["value"]``, with ``low`` and ``high``, the ends of its interval; beside
    ``popularity`` and ``random``, and the lists less each of them, ``over_popularity`` and ``over_random``."""
    beats_popularity: bool
    """Beyond chance, by ``told["by"]``."""

    @staticmethod
    def of(told: Mapping[str, Any]) -> ListsEvaluation:
        return ListsEvaluation(told, told["days"], told["counts"]["contexts"], told["metrics"], beats_popularity(told))

    def grids(self) -> Iterator[Grid]:
        rows = []
        for name, of in self.metrics.items():
            gap = of["over_popularity"]
            ends = "-" if gap["low"] is None else f"{gap['low']:+.5f} to {gap['high']:+.5f}"
            values = [f"{of[system]['value']:.5f}" for system in ("lists", "popularity", "random")]
            rows.append((name, *values, f"{gap['value']:+.5f}", ends))
        when = f", {self.days[0]} to {self.days[-1]}" if self.days else ""
        head = ("", "lists", "popularity", "random", "over popularity", f"{self.told['confidence']:.0%} interval")
        yield Grid(f"{verdict(self.told)}; {self.contexts:,} contexts{when}", head, rows)


@dataclass(frozen=True, repr=False)
class Explanation(Result):
    """Why a row has its probability: shares of the logit that add up to it."""

    probability: float
    logit: float
    bias: float
    terms: Sequence[Mapping[str, Any]]
    """``{"fields": [...], "logit": share}``, the largest first; with the bias they sum to ``logit``."""

    @staticmethod
    def of(told: Mapping[str, Any]) -> Explanation:
        return Explanation(told, told["probability"], told["logit"], told["bias"], told["terms"])

    def grids(self) -> Iterator[Grid]:
        values = self.told["values"]
        rows = [
            (f"{term['logit']:+.4f}", " x ".join(f"{name}={values[name]}" for name in term["fields"]))
            for term in self.terms[:20]
        ]
        title = f"Probability {self.probability:.5f}: logit {self.logit:+.4f}, bias {self.bias:+.4f}"
        yield Grid(title, ("logit", "of"), rows, [picture_of(self.told, 20)])


@dataclass(frozen=True, repr=False)
class Importance(Result):
    """Shares of the logits' variance: those of the fields add up to 1."""

    fields: Mapping[str, float | None]
    """The largest first; None for a model without such shares."""
    hidden: Mapping[str, float]
    """What the logloss rises by where a field is hidden."""
    pairs: Mapping[tuple[str, str], float]
    """The largest first."""

    @staticmethod
    def of(told: Mapping[str, Any]) -> Importance:
        return Importance(
            told,
            {each["field"]: each["share"] for each in told["fields"]},
            {each["field"]: each["hidden"] for each in told["fields"]},
            {(each["fields"][0], each["fields"][1]): each["share"] for each in told["pairs"]},
        )

    def grids(self) -> Iterator[Grid]:
        rows = [(f, "-" if s is None else f"{s:.2%}", f"{self.hidden[f]:+.5f}") for f, s in self.fields.items()]
        yield Grid(f"Fields, over {self.told['rows']:,} rows", ("field", "share", "logloss without"), rows)
        pairs = [(" x ".join(pair), f"{share:.2%}") for pair, share in list(self.pairs.items())[:10]]
        from fieldwise.pipelines.train.importance import picture  # with what reads rows

        yield Grid("Pairs of fields", ("pair", "share"), pairs, [picture(self.told)])


def measured(title: str, by_role: Mapping[str, Mapping[str, float]]) -> Grid:
    """Roles by metrics, each with its standard error."""
    head = ("", "rows", "positives", *(NAMES[name] for name in TABLE))
    rows = [
        (role, f"{found['rows']:,.0f}", f"{found['positives']:,.0f}", *(with_error(found, name) for name in TABLE))
        for role, found in by_role.items()
    ]
    return Grid(title, head, rows)
