"""Signs of life during long work outside of training steps: testing a model, extracting features, fitting a probe."""

from __future__ import annotations

import time

from vidmae.ranks import preempt, watchdog
from vidmae.ranks.dist import Ranks
from vidmae.ranks.program import say
from vidmae.runs.metrics import HEARTBEAT_S
from vidmae.runs.record import RunFolder, touch_heartbeat
from vidmae.settings.config import RunConfig


class Pulse:
    """Call it with every batch: it sets the watchdog's clock anew, leaves a heartbeat, says how far the work is.

    Args:
        run: The run folder.
        config: Its configuration.
        ranks: All ranks.
    """

    def __init__(self, run: RunFolder, config: RunConfig, ranks: Ranks) -> None:
        self._run, self._config, self._ranks = run, config, ranks
        self._last_beat, self._last_line = -float("inf"), time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> bool:
        """Take a sign of life; True where a signal asks to stop.

        Args:
            what: Names the work.
            done: How much of it is done, in units of its own.
            total: How much there is; 0 where nobody knows.
        """
        now = time.monotonic()
        watchdog.expect_within(self._config.recovery.start_limit_s)
        if self._ranks.is_main and now - self._last_beat >= HEARTBEAT_S:
            self._last_beat = now
            touch_heartbeat(self._run, state=what, done=done, total=total)
        if total and now - self._last_line >= self._config.log.every_s:
            self._last_line = now
            say(self._ranks, f"{what}: {done} of {total}")
        return preempt.received() is not None
