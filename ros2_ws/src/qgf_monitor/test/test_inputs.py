# SPDX-License-Identifier: Apache-2.0
"""Bytes that nobody meant: messages with bytes changed, cut or put together go all the way to the judgements."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest

from qgf_monitor.config import load_config
from qgf_monitor.inputs import KINDS, Input
from qgf_monitor.monitor import Monitor

CONFIG = load_config()
JOINTS = ("a", "b")


def changed(payload: bytes, draw: random.Random) -> bytes:
    """With a few bytes changed, most often to the patterns that lengths, signs and exponents hang on."""
    found = bytearray(payload)
    for _ in range(draw.randint(1, 4)):
        if not found:
            break
        place = draw.randrange(len(found))
        kind = draw.randrange(4)
        if kind == 0:
            found[place] = draw.choice([0, 1, 0x7F, 0x80, 0xF0, 0xFF])
        elif kind == 1:
            found[place] = draw.randrange(256)
        elif kind == 2:
            del found[place:place + draw.randint(1, 9)]
        else:
            found[place:place] = draw.randbytes(draw.randint(1, 9))
    return bytes(found)


@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_never_end_the_monitor(bags, seed):
    draw = random.Random(seed)
    monitor = Monitor(CONFIG, JOINTS)
    states = Input(monitor.recorder, KINDS["JointState"])
    commands = Input(monitor.recorder, KINDS["Float64MultiArray"], is_command=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers of 1e300 overflow in a square; the figures say so
        for batch in range(60):
            payloads = [], []
            for k in range(batch * 10, batch * 10 + 10):
                stamp = bags.START + round(k * 1e9 / bags.RATE)
                values = [bags.signal(k, 0.0), bags.signal(k, 0.1)]
                both = bags.joint_state(JOINTS, values, values, stamp), bags.array(values)
                for list_of, good in zip(payloads, both, strict=True):
                    list_of.append(changed(good, draw) if draw.random() < 0.3 else good)
            received = np.array([bags.START + round(k * 1e9 / bags.RATE) for k in range(batch * 10, batch * 10 + 10)])
            now = (batch * 10 + 9) / bags.RATE
            states.take(payloads[0], received, now)
            commands.take(payloads[1], received, now)
            monitor.judge(now)
            monitor.diagnose(now)
    assert monitor.recorder.counts.malformed > 10
    # And it sees again when the bytes are right again.
    for k in range(600, 1000):
        stamp = bags.START + 10**10 + round(k * 1e9 / bags.RATE)
        values = [bags.signal(k, 0.0), bags.signal(k, 0.1)]
        states.take([bags.joint_state(JOINTS, values, values, stamp)], np.array([stamp]), 100.0 + k / bags.RATE)
    reports = {j.report.source: j.report for j in monitor.judge(100.0 + 999 / bags.RATE)}
    assert reports["joint_position"].band_rms[1] == pytest.approx(0.1 / np.sqrt(2.0), rel=0.05)
