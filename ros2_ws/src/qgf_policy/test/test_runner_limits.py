# SPDX-License-Identifier: Apache-2.0
"""Whatever the policy asks and whatever fails: no command leaves the limits, none is not finite, none jumps."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qgf_core.errors import StateError
from qgf_policy.settings import RunnerSettings

KINDS = ["stale", "missing", "nan", "malformed", "nan_action", "raise", "estop", "deactivate"]
FAULTS = st.sampled_from(["none"] * 8 + KINDS)


@given(
    seed=st.integers(0, 2**31),
    interface=st.sampled_from(["velocity", "position"]),
    substeps=st.sampled_from([1, 5]),
    ramp=st.sampled_from([0.0, 0.05, 0.5]),
    faults=st.lists(FAULTS, min_size=5, max_size=30),
)
@example(  # the brake ends 3e-8 rad/s short of a standstill at full deceleration: no snapping to 0 from there
    seed=1, interface="velocity", substeps=5, ramp=0.0, faults=["none", "stale", "none", "stale", "stale"]
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_limits_hold_under_bang_bang_actions_and_faults(make_rig, seed, interface, substeps, ramp, faults):
    generator = np.random.default_rng(seed)
    answer = [np.zeros(7)]

    def rule(observation):
        if answer[0] is None:
            raise RuntimeError("no")
        return answer[0]

    run_settings = RunnerSettings(
        command_interface=interface, command_rate=100.0 * substeps, ramp_duration=ramp
    )
    rig = make_rig(rule, run_settings)
    robot = rig.robot
    margin = robot.position_margin
    start = generator.uniform(robot.position_lower + margin, robot.position_upper - margin)
    rig.position = start
    h = 1e-9 * rig.runner.command_period
    rig.activate()
    values = [start.copy()] if interface == "position" else [np.zeros(7)]
    for fault in faults:
        answer[0] = np.sign(generator.normal(size=7)) * generator.choice([0.3, 1.0])
        answer[0] = {"nan_action": np.full(7, np.nan), "raise": None}.get(fault, answer[0])
        if fault == "estop":
            rig.runner.estop("test")
        elif fault == "deactivate":
            rig.runner.deactivate()
        for _ in range(substeps * int(generator.integers(1, 40))):
            state = rig.state()
            if fault == "stale":
                state = rig.state(sampled=np.full(7, rig.clock.now() - 10**9))
            elif fault == "missing":
                state = rig.state(missing=("panda_joint3",))
            elif fault == "nan":
                state = rig.state(position=np.full(7, np.nan))
            elif fault == "malformed":
                state = rig.state(refusals=(StateError("malformed_state", "test"),))
            command, _ = rig.step(state)
            if command is None:
                break
            values.append(command.values)
            if interface == "position":
                rig.position = command.values
    values = np.array(values)
    assert np.isfinite(values).all()
    velocity = np.diff(values, axis=0) / h if interface == "position" else values
    acceleration = np.diff(velocity, axis=0) / h
    jerk = np.diff(acceleration, axis=0) / h
    # Differences of float64 positions lose digits: tolerances of a millionth of each limit.
    assert np.all(np.abs(velocity) <= robot.velocity_limit * (1 + 1e-6))
    assert np.all(np.abs(acceleration) <= robot.acceleration_limit * (1 + 1e-6) + 1e-6)
    assert np.all(np.abs(jerk) <= robot.jerk_limit * (1 + 1e-6) + 1e-3)
    if interface == "position":
        assert np.all(values >= robot.position_lower) and np.all(values <= robot.position_upper)
    else:
        assert np.all(rig.position >= robot.position_lower) and np.all(rig.position <= robot.position_upper)


@pytest.mark.parametrize("interface", ["velocity", "position"])
def test_pushed_at_a_limit_for_long_the_arm_stays_inside(make_rig, interface):
    for direction in (1.0, -1.0):
        run_settings = RunnerSettings(command_interface=interface, saturation_time=0.0)
        rig = make_rig(lambda o, d=direction: np.full(7, d), run_settings)
        robot = rig.robot
        rig.activate()
        positions = []
        for _ in range(800):
            command, _ = rig.step()
            if interface == "position":
                rig.position = command.values
            positions.append(rig.position)
        assert np.all(positions <= robot.position_upper) and np.all(positions >= robot.position_lower)
        reached = (
            robot.position_upper if direction > 0 else robot.position_lower
        ) - direction * robot.position_margin
        np.testing.assert_allclose(positions[-1], reached, atol=0.06)
