# SPDX-License-Identifier: Apache-2.0
"""The benches of the dial and of the rivals: their statistics by hand, and tables and plot of an unfinished grid."""

import sys
from pathlib import Path

import numpy as np
import pytest

from qgf_trainer.comparison import Cell

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks"))
import dial
import judged
import rivals

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


def test_rivals_are_told_by_what_plain_does():
    late = [trained("td3-plain", 0, -300.0), trained("td3@0.3", 0, -130.0, mean_abs_delta=0.02)]
    late[0].figures["mean_abs_delta"] = 0.4
    late.append(trained("td3-plain", 1, -300.0, mean_abs_delta=0.4))
    filtered = [trained("td3-plain", 0, -104.0, sm=0.2)]
    table = rivals.rows({"as trained": FOUND, "delay": late, "filter": filtered})
    assert rivals.shares(table, "Pendulum-v1", "td3@0.3") == pytest.approx(
        {"sm": 1.0, "mean_abs_delta": 1.0, "delayed": 0.05}
    )
    assert rivals.shares(table, "Pendulum-v1", rivals.FILTERED) == pytest.approx({"sm": 0.4, "mean_abs_delta": 1.0})
    told = rivals.summary(table, "Pendulum-v1", rivals.FILTERED)
    assert told == "-4.0 [-4.0, -4.0]; Sm 0.40, delta 1.00"
    assert rivals.summary(table, "Pendulum-v1", "td3@5") == ""  # it failed, and is listed
    assert "- Pendulum-v1-td3@5-0: the training process ended" in judged.markdown(table)
