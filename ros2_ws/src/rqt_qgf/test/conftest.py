# SPDX-License-Identifier: Apache-2.0
"""Messages with known numbers, in the shape of qgf_msgs."""

from __future__ import annotations

import os

import numpy as np
import pytest

from qgf_msgs.msg import PolicyCommand, PolicyStatus, SmoothnessReport, Spectrum

os.environ["QT_QPA_PLATFORM"] = "offscreen"  # no display is needed, and none is opened
JOINTS = ["shoulder", "elbow", "wrist"]


def report(**changes):
    """A report with a different figure in every place."""
    nan = float("nan")
    values = {
        "source": "command", "joint_names": JOINTS, "window": 2.0, "nominal_window": 2.0, "sample_rate": 100.0,
        "band_rms": [0.011, 0.25, nan], "baseline": [0.01, 0.05, 0.02], "baseline_ratio": [1.1, 5.0, nan],
        "joint_level": [0, 2, 1], "level": 2, "summary": "chatter on elbow", "high_frequency_cutoff": 20.0,
        "period_histogram_edges": [-0.002, -0.001, 0.001, 0.002], "period_histogram": [3, 190, 7]}
    return SmoothnessReport(**(values | changes))


def spectrum(**changes):
    """Three joints, four bins: 4, 9, 16, 25 times ten to the power of the joint's number."""
    rows = np.outer([1.0, 10.0, 100.0], [4.0, 9.0, 16.0, 25.0])
    nan = float("nan")
    values = {"source": "command", "joint_names": JOINTS, "sample_rate": 100.0, "frequency": [0.0, 10.0, 20.0, 30.0],
                  "power": rows.ravel().tolist(), "baseline": [1.0, 1.0, nan, 1.0] * 3, "high_frequency_cutoff": 20.0,
                  "peak_frequency": [10.0, nan, nan, 20.0, 30.0, nan, nan, nan, nan],
                  "peak_power": [9.0, nan, nan, 160.0, 250.0, nan, nan, nan, nan]}
    return Spectrum(**(values | changes))


def status(**changes):
    """An active policy that has been late at times."""
    values = {
        "mode": PolicyStatus.ACTIVE, "control_rate": 100.0, "cycles": 1234, "overruns": 5, "skipped_cycles": 6,
        "late10": 0.0123, "limited_commands": 7, "estops": 1, "period_jitter_p99": 0.00015, "period_jitter_max": 0.0021,
        "stage_names": ["wait", "take"], "histogram_edges": [1e-5, 1e-3], "stage_histogram": [10, 20, 30, 40, 50, 60],
        "bundle": "/bundles/mine.pt", "bundle_sha256": "0123456789abcdef" * 4}
    return PolicyStatus(**(values | changes))


def command(values, **changes):
    """A velocity command."""
    fields = {"joint_names": JOINTS, "command": list(values), "command_interface": "velocity"}
    return PolicyCommand(**(fields | changes))


@pytest.fixture
def messages():
    """The makers above, for tests in other files."""
    class Messages:
        pass
    for maker in (report, spectrum, status, command):
        setattr(Messages, maker.__name__, staticmethod(maker))
    return Messages


@pytest.fixture(scope="session")
def application():
    """Qt's application. The Qt wheel needs a library of the system that a machine without any desktop may lack."""
    try:
        from pyqtgraph.Qt import QtWidgets
    except ImportError as error:
        pytest.skip(f"Qt cannot be loaded: {error}; apt-get install libgl1 libglib2.0-0 libfontconfig1")
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["test"])
