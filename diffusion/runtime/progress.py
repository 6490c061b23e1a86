"""Progress of work that a device does on its own, while more of it is handed over."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax

AHEAD = 0.5  # seconds of work that are asked for before any of it is waited for


class InFlight:
    """Counts work that is done, and lets the device have the next before it is.

    Whoever waits for each step before the next is asked for leaves the device idle in between; who
    never waits has no progress to show, and cannot stop. So as many steps are on their way as fill
    `AHEAD` seconds, or one, if it takes longer.

    Args:
        done: called for each piece of work that is finished.
    """

    def __init__(self, done: Callable[[], Any]):
        self.done = done
        self.on_the_way: deque[jax.Array] = deque()
        self.allowed = 0  # nobody knows yet how long one takes
        self.waited = time.perf_counter()

    def add(self, result: jax.Array) -> None:
        self.on_the_way.append(result)
        while len(self.on_the_way) > self.allowed:
            self._wait()
            now = time.perf_counter()
            self.allowed = max(1, int(AHEAD / max(now - self.waited, 0.01)))
            self.waited = now

    def finish(self) -> None:
        while self.on_the_way:
            self._wait()

    def _wait(self) -> None:
        jax.block_until_ready(self.on_the_way.popleft())
        self.done()
