# SPDX-License-Identifier: Apache-2.0
"""Nothing is compiled while an arm moves: once a runner is made, every kernel has the kinds of arguments to come."""

import os
import subprocess
import sys
import textwrap

RUN = """
    import importlib, pkgutil, sys
    import numpy as np
    from qgf_core.bundle import load_bundle
    from qgf_policy.joint_state import JointStateMerger
    from qgf_policy.runner import PolicyRunner
    from qgf_policy.settings import RunnerSettings
    from qgf_policy.status import Mode

    def compiled():
        found = {}
        for package in ("qgf_core", "qgf_policy"):
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                if module.name.endswith("_kernel"):
                    members = vars(importlib.import_module(f"{package}.{module.name}"))
                    found |= {name: len(one.signatures) for name, one in members.items() if hasattr(one, "signatures")}
        return found

    bundle = load_bundle(sys.argv[1])
    runner = PolicyRunner(bundle, RunnerSettings(tracking_limit=0.0))
    robot = runner.manifest.robot
    merger, now, modes = JointStateMerger(robot, runner.state_limit), 10**9, set()
    before = compiled()
    for k in range(120):
        now += 10**7
        # As a message's numbers lie: read-only and at an odd address.
        place = np.frombuffer(b"xxxx" + (robot.home + 1e-3 * np.sin(0.1 * k)).tobytes(), np.float64, 7, 4)
        merger.add(robot.joint_names, place, np.zeros(7), now, now)
        state = merger.snapshot()
        if k == 20:
            runner.set_goal((0.5, 0.1, 0.4), robot.base_frame, 1, now)
            runner.activate(state, now)
        if k == 90:
            runner.estop("test")
        if k >= 20:
            modes.add(runner.step(state, now)[1].mode)
    assert {Mode.RAMPING, Mode.ACTIVE, Mode.ESTOPPED} <= modes, modes
    assert len(before) > 8 and compiled() == before, (before, compiled())
"""


def test_nothing_is_compiled_once_a_runner_is_made(bundle_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(RUN), str(bundle_path)], env=environment,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
