"""Batches with their distinct rows found, a few ahead of the consumer."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from types import TracebackType
from typing import Any, NamedTuple

from fieldwise.training.data.batch import Batch
from fieldwise.training.data.cache import Seen
from fieldwise.training.data.prefetch import Prefetch
from fieldwise.training.data.reader import Blocks, PlanReader, decoded
from fieldwise.training.step.lookup import Compact, Lookup


class Work(NamedTuple):
    """A batch with its distinct rows found."""

    batch: Batch
    compact: Compact


class Passes:
    """Batches with their distinct rows found, a few ahead of the consumer: one reader after another, without a pause.

    Iterating gives the batches of the next reader, then ``read`` is that reader. The readers of an epoch are opened
    together. A context manager: leaving it closes the readers and ends the threads.
    """

    read: PlanReader

    def __init__(self, lookup: Lookup, epochs: Iterable[Sequence[PlanReader]], seen: Seen) -> None:
        coming = iter(epochs)
        first = list(islice(coming, 1))

        def arriving() -> Generator[PlanReader | Blocks, None, None]:
            for readers in chain(first, coming):
                with closing(decoded(readers, seen)) as columns:
                    for reader in readers:
                        yield reader
                        yield from reader.arrivals(columns)

        def looked_up() -> Generator[Work | PlanReader, None, None]:
            with Prefetch(arriving(), max((readers[0].ahead for readers in first), default=1)) as items:
                blocks: Any = iter(items)  # of a reader, after it
                for reader in blocks:
                    for batch in reader.batches(blocks):
                        yield Work(batch, lookup(batch.slots))
                    yield reader

        self._ahead = Prefetch(looked_up())
        self._items = iter(self._ahead)

    def __enter__(self) -> Passes:
        return self

    def __iter__(self) -> Iterator[Work]:
        for item in self._items:
            if isinstance(item, PlanReader):
                self.read = item
                return
            yield item

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ahead.__exit__(kind, error, tb)
