"""What a user writes about data: source, joins, label, split, fields, snapshot settings.

Every default lives here (or with its field kind in ``features.fields``) and nowhere else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fieldwise.features.columns.encoding import code_points
from fieldwise.features.columns.expression import Expression
from fieldwise.features.columns.moment import Duration, Time
from fieldwise.features.errors import ConfigError
from fieldwise.features.fields import AnyField, check_fields, expand_fields
from fieldwise.features.schema import Names, Strict


class SourceConfig(Strict):
    """Where rows come from and how their bytes read as columns.

    A directory ``column=value`` above a file (as Hive and Spark write them, URL-encoded, ``__HIVE_DEFAULT_PARTITION__``
    for null) is a column, as text, for whoever names it - field, label, time, filter, key, id - where the file has none
    of that name; in jsonl, where a row has none. "All columns" are those of the files.
    """

    path: Annotated[Names, Field(min_length=1)]
    """File, glob or directory, or a list of them; any URL that fsspec knows. ``{date}`` stands for the day. What
    exists as written is taken as written; else ``*``, ``?`` and ``[...]`` match names and ``**`` directories. A
    directory stands for all files below it. Names with a leading ``_`` or ``.`` are passed over, unless the path names
    them. Links are followed; a file reached twice is read once. Text may be compressed: .gz, .bz2, .xz, .zst."""
    format: Literal["csv", "tsv", "jsonl", "parquet"] = "csv"
    """tsv is csv with tab separator and no quoting."""
    separator: str | None = None
    """One byte between columns of csv/tsv. Default: ``,`` (csv), tab (tsv)."""
    quote: str | None = None
    """One byte around csv values that hold the separator or a line break; doubled inside. Default: ``"`` (csv), none
    (tsv)."""
    multiline: bool = True
    """Whether quoted values may hold line breaks. Large files are then read once more, to find where they can be cut;
    ``false`` promises that there are none and saves that: a quote left open at the end of its line is then an error."""
    columns: Names | None = None
    """Column names by position, of csv and tsv: all of them, in file order. jsonl and parquet name their own."""
    header: bool | None = None
    """Whether the first line of each file is a header. Without ``columns`` it names them, file by file; with
    ``columns`` it is skipped, must have as many names, and must be the same in all files of the source. A file that
    begins with a row is refused, an empty one is not. Default: yes when ``columns`` is not given; a first line that
    names the columns is then refused."""
    encoding: str = "utf-8"
    """Of text sources: any single-byte or UTF-8 codec Python knows."""

    @model_validator(mode="after")
    def _consistent(self) -> SourceConfig:
        for key in ("separator", "quote"):
            value = getattr(self, key)
            if value is not None and len(value.encode()) != 1:
                raise ValueError(f"{key} must be one byte, got {value!r}")
        if self.format in ("csv", "tsv") and self.columns is None and self.header is False:
            raise ValueError("`columns`, which a csv or tsv source without header line needs")
        for key in ("columns", "header"):
            if self.format in ("jsonl", "parquet") and getattr(self, key) is not None:
                raise ValueError(f"{key} has no effect: {self.format} names its own columns")
        if self.format in ("csv", "tsv") and (
            self.byte_separator == self.byte_quote or {self.byte_separator, self.byte_quote} & {"\n", "\r"}
        ):
            raise ValueError("separator and quote must differ, and be no line breaks")
        code_points(self.encoding)
        return self

    @property
    def byte_separator(self) -> str:
        """Separator in force."""
        return self.separator or ("\t" if self.format == "tsv" else ",")

    @property
    def byte_quote(self) -> str | None:
        """Quote in force; None where quoting is off."""
        return self.quote or ('"' if self.format == "csv" else None)


class JoinConfig(SourceConfig):
    """A side table whose columns are added to each row of the log by a key. Duplicate keys are refused."""

    on: str
    """Key column, of the same name in the log and the side table."""
    select: Names | None = None
    """Columns to add. Default: all of its files but the key."""


class SplitConfig(Strict):
    """Which rows train, validate and test. ``none`` publishes all rows with role ``all`` (daily snapshots)."""

    by: Literal["time", "files", "hash", "none"] = "none"
    """time: the newest rows test, those before them validate. files: by path. hash: by the value of ``key``."""
    valid: float | str | list[str] | None = None
    """time, hash: fraction of rows. files: glob patterns of file paths."""
    test: float | str | list[str] | None = None
    """Like ``valid``."""
    key: str | None = None
    """hash: the column whose XXH64 decides; rows with the same value stay together."""

    @model_validator(mode="after")
    def _consistent(self) -> SplitConfig:
        parts = {"valid": self.valid, "test": self.test}
        if self.by == "none" and any(v is not None for v in parts.values()):
            raise ValueError("neither valid nor test to split by none")
        if self.by in ("time", "hash"):
            for name, value in parts.items():
                if not isinstance(value, float | int) or not 0 <= value < 1:
                    raise ConfigError(
                        f"split.{name}", expected=f"a fraction in [0, 1) to split by {self.by}",
                        found="none" if value is None else repr(value),
                        fix=f"Write `{name}: 0.1` for a tenth of the rows.",
                    )  # fmt: skip
            if sum(float(v) for v in parts.values() if isinstance(v, float | int)) >= 1:
                raise ValueError("split.valid + split.test below 1, so that rows are left to train on")
        if self.by == "files" and any(isinstance(v, float | int) for v in parts.values()):
            raise ValueError("glob patterns, not fractions, to split by files")
        if (self.by == "hash") != (self.key is not None):
            raise ValueError("split.key, the column to hash, to split by hash and only then")
        return self


class SnapshotConfig(Strict):
    """How snapshots are laid out."""

    rows_per_file: Annotated[int, Field(ge=1)] = 65536
    """Target rows of one file (one row group). The number of files derives from the data alone."""
    shuffle: Literal["global", "none"] = "global"
    """global: rows placed by a seeded hash, same bytes on any cluster. none: source order per split, faster."""
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Above this share of quarantined rows the job stops with exit code 3."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 42
    """Seed of row placement."""
    negative_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the training split's negatives to keep; which ones stays the same on every run. Default: all."""


class NegativesConfig(Strict):
    """Rows for a log that holds only what people did (watched, bought, played): items drawn for every positive.

    A negative is the positive's row with another item: the columns that the items have come from them, side tables are
    joined by its id, all others stay; its label is 0. Negatives are drawn in every split, so that training can be
    stopped by them; how good lists are, `evaluate-lists` says. Probabilities are those of being the positive among the
    drawn, not of an event: only their order means anything.
    """

    items: SourceConfig
    """What may be drawn, one row each."""
    context: str
    """Column of the log: whose items are known."""
    item: str
    """Column of the log and of the items: their id."""
    per_positive: Annotated[int, Field(ge=1, le=1000)] = 4
    """How many are drawn for each positive."""
    by: Annotated[str, Field(pattern=r"^(uniform|popularity(\^\d+(\.\d+)?)?)$")] = "popularity^0.75"
    """uniform: all items alike. popularity^p: by the number of an item's positives among the training rows, to the
    power p (Mikolov et al. 2013 took 0.75); items without any are then never drawn."""
    exclude: Literal["seen"] | None = "seen"
    """seen: no item that the row's context has anywhere in the log that was read, rows of later splits included. A
    day's snapshot knows that day's log alone. null: any item may be drawn."""


class FeatureConfig(Strict):
    """Everything between raw logs and a snapshot."""

    source: SourceConfig
    join: tuple[JoinConfig, ...] = ()
    """Side tables, one block or a list of them: each adds its columns to the log's rows by a key."""
    label: str
    """Column or expression; true/1 is a positive. Example: ``rating >= 4``."""
    weight: str | None = None
    """Column or expression of a row's weight in the loss. Default: every row weighs 1."""
    filter: str | None = None
    """Expression; rows where it is not true are left out, and counted."""
    time: Time | None = None
    """The moment of a row: for split by time, for ``--date`` without ``{date}`` in the path, and for time fields."""
    label_delay: Duration | None = None
    """How late a label may still change (``1d``, ``6h``). A day's snapshot then holds the rows from that long before
    the day's start to that long before its end, so that every row is in one day and its label is settled; a snapshot
    of everything ends that long before the newest row. The source must hold the day and those before it as they are
    known at the day's end. Needs ``time``. Default: labels are in the log from the start."""
    split: SplitConfig = SplitConfig()
    negatives: NegativesConfig | None = None
    """For logs of positives. Default: the log has its negatives."""
    fields: Annotated[list[AnyField], Field(min_length=1)]
    """What a row is made of, in order; their kinds follow below."""
    beside: Names = Field(default_factory=list)
    """Raw columns of the log or of side tables that travel beside a snapshot's rows, for ``evaluation.group`` and
    ``evaluation.slices``; no field of the model."""
    snapshot: SnapshotConfig = SnapshotConfig()

    def asked(self) -> dict[str, Any]:
        """All keys that say something, as JSON: those of later versions only where they are set, so that what was asked
        for before is the same."""
        later = {key for key in ("negatives", "beside") if not getattr(self, key)}
        return self.model_dump(mode="json", exclude=later)

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("join"), dict):
            value = {**value, "join": [value["join"]]}
        return expand_fields(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _consistent(self) -> FeatureConfig:
        check_fields(self.fields)
        if len(set(self.beside)) < len(self.beside):
            twin = next(name for name in self.beside if self.beside.count(name) > 1)
            raise ConfigError("beside", expected="each column once", found=f"{twin!r} twice", fix="Remove one.")
        for key in ("label", "weight", "filter"):
            if getattr(self, key) is not None:
                Expression(getattr(self, key), key)  # does it parse?
        if self.split.by == "time" and self.time is None:
            fix = "Name the column: `time: COLUMN`, or split by hash or files."
            raise ConfigError("split.by", expected="a `time` to split by", found="no `time`", fix=fix)
        if self.label_delay is not None and self.time is None:
            fix = "Name the column: `time: COLUMN`."
            raise ConfigError("label_delay", expected="a `time` that it is counted from", found="no `time`", fix=fix)
        if self.negatives is not None and self.snapshot.negative_rate is not None:
            fix = "Lower negatives.per_positive."
            raise ConfigError("snapshot.negative_rate", expected="none beside `negatives`", found="both", fix=fix)
        if self.snapshot.negative_rate is not None and self.split.by == "none":
            raise ConfigError(
                "snapshot.negative_rate",
                expected="a training split to downsample: there is none without `split`",
                found="none",
                fix="Set `split`, or remove negative_rate.",
            )  # fmt: skip
        return self
