# SPDX-License-Identifier: Apache-2.0
"""Shares of a blend over time."""

from __future__ import annotations


def minimum_jerk(elapsed: float, duration: float) -> float:
    """Share of a blend after `elapsed` of `duration`: 10 t^3 - 15 t^4 + 6 t^5 (Flash and Hogan 1985)."""
    if elapsed >= duration:
        return 1.0
    tau = elapsed / duration
    return tau * tau * tau * (10.0 + tau * (6.0 * tau - 15.0))
