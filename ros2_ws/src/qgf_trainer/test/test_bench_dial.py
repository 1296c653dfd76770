# SPDX-License-Identifier: Apache-2.0
"""The bench of the dial: its statistics by hand, and its table and plot of a grid that is not whole."""

import sys
from pathlib import Path

import numpy as np
import pytest

from qgf_trainer.comparison import Cell

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks"))
import dial
import judged

sys.path.pop(0)


def test_the_low_pass_by_hand():
    policy = judged.LowPass(lambda observation: np.float32([1.0]))
    assert [float(policy(np.zeros(1))[0]) for _ in range(3)] == pytest.approx([0.3, 0.51, 0.657])
    policy.restart()
    assert float(policy(np.zeros(1))[0]) == pytest.approx(0.3)


def test_the_interval_is_of_the_pairs():
    """Starts differ by hundreds, the methods by exactly 2: pairing leaves nothing else."""
    theirs = np.array([[-300.0, -100.0, 0.0], [-310.0, -90.0, 5.0]])
    assert judged.paired_interval(theirs - 2.0, theirs) == (-2.0, -2.0, -2.0)
    mean, low, high = judged.paired_interval(np.add(theirs, [[1.0], [3.0]]), theirs)
    assert (mean, low, high) == (2.0, 1.0, 3.0)


def trained(method, seed, value, **more):
    figures = {"return": value, "sm": 0.5, "mean_abs_delta": 0.1, "returns": [value, value]}
    return judged.Trained(Cell("Pendulum-v1", method, seed), figures | more)


FOUND = [
    trained("td3-plain", 0, -100.0),
    trained("td3-plain", 1, -120.0),
    trained("td3@0.3", 0, -121.0),
    trained("td3-auto", 0, -110.0, smoothness_dial=0.7),
    judged.Trained(Cell("Pendulum-v1", "td3@5", 0), None, "the training process ended with code 1"),
]


def test_table_and_json_tell_what_is_there_and_what_failed():
    grouped = judged.by_method(FOUND)
    plain = grouped["Pendulum-v1", "td3-plain"]
    assert dial.loss(grouped["Pendulum-v1", "td3@0.3"], plain) == pytest.approx(10.0)
    text = judged.markdown(FOUND, lambda task, method: "x", "loss [%]")
    assert "| td3-plain | 2 | -110.0 (-120.0 .. -100.0) |" in text and "| td3@5 | 0 |" in text
    assert "- Pendulum-v1-td3@5-0: the training process ended with code 1" in text
    told = judged.flat(FOUND)
    assert (told["Pendulum-v1.td3-plain.return"], told["Pendulum-v1.td3-plain.return.min"]) == (-110.0, -120.0)
    assert told["failed"] == 1.0 and told["Pendulum-v1.td3-auto.smoothness_dial"] == 0.7
    assert judged.paired_to(FOUND, "td3-plain", "Pendulum-v1", "td3@0.3") == (-21.0, -21.0, -21.0)


def test_the_plot_is_drawn_of_what_is_there():
    assert dial.draw(FOUND).startswith(b"\x89PNG")
