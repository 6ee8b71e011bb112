"""A piece of work that several threads share, of which the last to end puts the result together."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

from imagen_fast.errors import InvalidInput

T = TypeVar("T")


class UnderWay(Generic[T]):
    """`finish()`, called after all `parts`, by the thread that ends last: no thread waits for another."""

    def __init__(self, pool: Executor, parts: Sequence[Callable[[], None]], finish: Callable[[], T]) -> None:
        self._finish, self._left, self._lock = finish, len(parts), threading.Lock()
        self._made: Future[T] = Future()
        self._tasks = [pool.submit(self._run, part) for part in parts]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def result(self) -> T:
        """Wait for it. An exception of a thread comes out here."""
        return self._made.result()

    def cancel(self) -> None:
        """Whatever has not begun never will."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: Future[None]) -> None:
        if task.cancelled():
            self._fail(InvalidInput("the loader was closed, and what it had under way is lost"))

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if not self._made.done():
                self._made.set_exception(error)

    def _run(self, part: Callable[[], None]) -> None:
        try:
            part()
            with self._lock:
                self._left -= 1
                if self._left:
                    return
            self._made.set_result(self._finish())
        except BaseException as error:
            self._fail(error)
