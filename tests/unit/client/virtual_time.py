"""An event loop whose time jumps to the next timer as soon as nothing else is to do: a day takes milliseconds."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from discovery.clock import MICROSECONDS, Instant

START_US = 1_800_000_000_000_000

P = ParamSpec("P")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits, nor looks at any socket: where another would wait, it moves its time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class VirtualClock:
    """A Clock of the running loop's time, on which a machine can be suspended and its wall clock be set."""

    def __init__(self) -> None:
        self._suspended_us = 0
        self._wall_us = START_US

    def now(self) -> Instant:
        us = round(asyncio.get_running_loop().time() * MICROSECONDS) + self._suspended_us
        return Instant(self._wall_us + us, us)

    def seconds(self) -> float:
        """Return how long ago the test began."""
        return self.now().monotonic_us / MICROSECONDS

    def suspend(self, seconds: float) -> None:
        """Let time pass that the event loop knows nothing of."""
        self._suspended_us += round(seconds * MICROSECONDS)

    def step_wall(self, seconds: float) -> None:
        self._wall_us += round(seconds * MICROSECONDS)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a loop of its own, and see that it leaves no task there."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def alone() -> None:
            await test(*args, **kwargs)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(alone())

    return run
