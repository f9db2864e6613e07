"""Work ahead of its consumer in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterates a generator in a background thread, ``depth`` items ahead; its errors are raised here.

    A context manager: leaving it closes the generator and ends the thread.
    """

    def __init__(self, source: Generator[T, None, None], depth: int = 4) -> None:
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
        self._stop, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._work, args=(source,), name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error = self._queue.get()
            if item is None:
                break
            yield item
        self._ended = True
        if error is not None:
            raise error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        while not self._ended:
            self._ended = self._queue.get()[0] is None
        self._thread.join()

    def _work(self, source: Generator[T, None, None]) -> None:
        error: BaseException | None = None
        try:
            with closing(source):
                for item in source:
                    self._queue.put((item, None))
                    if self._stop.is_set():
                        break
        except BaseException as raised:  # handed over to the consumer, whatever it is
            error = raised
        self._queue.put((None, error))
