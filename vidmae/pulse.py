"""Signs of life during long work between training steps: testing a model, extracting features."""

from __future__ import annotations

import time

from vidmae import preempt, watchdog
from vidmae.config import RunConfig
from vidmae.dist import Ranks
from vidmae.metrics import HEARTBEAT_S
from vidmae.program import say
from vidmae.record import RunFolder, touch_heartbeat


class Pulse:
    """Called with every batch: sets the watchdog's clock anew, leaves a heartbeat, says how far the work is.

    Args:
        run: The run folder.
        config: Its configuration.
        ranks: All ranks.
        what: Names the work in the log, such as `testing on 24,777 clips`.
    """

    def __init__(self, run: RunFolder, config: RunConfig, ranks: Ranks, what: str) -> None:
        self._run, self._config, self._ranks, self._what = run, config, ranks, what
        self._last_beat, self._last_line = -float("inf"), time.monotonic()
        watchdog.expect_within(config.recovery.start_limit_s)

    def __call__(self, done: int, total: int) -> bool:
        """One more batch is about to be worked on; True where a signal asks to stop.

        Args:
            done: Batches of this rank that are done.
            total: Batches of this rank.
        """
        now = time.monotonic()
        watchdog.expect_within(self._config.recovery.start_limit_s)
        if self._ranks.is_main and now - self._last_beat >= HEARTBEAT_S:
            self._last_beat = now
            touch_heartbeat(self._run, state=self._what, step=done, total_steps=total)
        if now - self._last_line >= self._config.log.every_s:
            self._last_line = now
            say(self._ranks, f"{self._what}: {100 * done / total:.0f} %")
        return preempt.received() is not None
