# SPDX-License-Identifier: Apache-2.0
"""Work that may fail without ending the watch. Pure."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from qgf_monitor.health import Level, Verdict
from qgf_monitor.monitor import Diagnosis

Work = Callable[[], None]
RECENT = 10.0
"""An error is told as one for so long [s], as a warning afterwards."""


class Mishaps:
    """Does work, and keeps count of what went wrong in it.

    An arm's monitor that ends with an error nobody foresaw is silent from then on, of all its signals. Each piece of
    work is tried anew at its next time; the error is told on the log with its traceback and on /diagnostics, never
    swallowed.

    :param tell: where tracebacks go.
    :param clock: steady [s].
    """

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._tell, self._clock = tell, clock
        self._last = ""
        self._when = 0.0

    def outlive(self, name: str, work: Work) -> Work:
        """The work, but an error in it is told in place of raised.

        :param name: of the work, for who reads of its error.
        """

        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and must not end the watch
                self.count += 1
                self._last = f"{name} failed: {type(error).__name__}: {error}"
                self._when = self._clock()
                self._tell(f"{self._last}; the monitor goes on, please report this\n{traceback.format_exc()}")

        return guarded

    def diagnosis(self) -> Diagnosis | None:
        """For /diagnostics; None as long as nothing went wrong."""
        if not self.count:
            return None
        age = self._clock() - self._when
        return Diagnosis("monitor", Verdict(Level.ERROR if age <= RECENT else Level.WARN, self._last),
                         {"errors since the start": self.count, "last error's age [s]": f"{age:.1f}"})
