# SPDX-License-Identifier: Apache-2.0
"""Ticks by /clock: on virtual clocks, standing still, going back; and the same actions at any real-time factor."""

import time
from pathlib import Path

import numpy as np
import pytest

from qgf_core.clocks import Pacer, VirtualClock
from qgf_core.errors import StateError
from qgf_policy.joint_state import JointState
from qgf_policy.loop import ControlLoop
from qgf_policy.runner import PolicyRunner
from qgf_policy.settings import RunnerSettings
from qgf_policy.sim_time import PATIENCE, ClockStepped, ClockStopped, SimClock
from qgf_policy.status import Mode

MS = 1_000_000


def clock_of(times):
    """A SimClock told one of `times` [ns] at each look (None: nothing new), and its steady clock."""
    told, steady = iter(times), VirtualClock(10**9)
    return SimClock(lambda: next(told, None), steady), steady


def test_it_waits_for_the_simulation_and_returns_at_the_first_time_that_is_due():
    clock, _ = clock_of([5 * MS, 10 * MS, None, 15 * MS, 20 * MS, 25 * MS])
    clock.sleep_until(18 * MS)
    assert clock.now() == 25 * MS  # the look after 20 ms
    assert clock.now() == 25 * MS


def test_a_clock_that_stands_still_is_told_after_half_a_second_and_asked_again():
    clock, steady = clock_of([MS])
    began = steady.now()
    with pytest.raises(ClockStopped):
        clock.sleep_until(10 * MS)
    assert clock.stopped and PATIENCE < steady.now() - began < PATIENCE + 20 * MS
    with pytest.raises(ClockStopped):
        clock.sleep_until(10 * MS)


def test_a_clock_that_was_never_told_stands_at_zero():
    clock, _ = clock_of([])
    assert clock.now() == 0
    with pytest.raises(ClockStopped):
        clock.sleep_until(1)


def test_a_clock_that_goes_back_is_told_once():
    clock, _ = clock_of([100 * MS, 40 * MS, 50 * MS])
    assert clock.now() == 100 * MS
    with pytest.raises(ClockStepped, match=r"from 0\.100 s to 0\.040 s"):
        clock.now()
    assert clock.now() == 50 * MS


def test_a_pacer_keeps_its_deadline_over_a_stop():
    times = [0, *[None] * 5000, 10 * MS, 20 * MS]
    clock, _ = clock_of(times)
    pacer = Pacer(clock, 10 * MS)
    stops = 0
    while True:
        try:
            deadline = pacer.wait()
            break
        except ClockStopped:
            stops += 1
    assert deadline == 10 * MS and stops > 0 and pacer.skipped == 0


class Simulation:
    """A port and a clock in one: simulated time goes on by 5 ms whenever it is looked at, unless paused."""

    def __init__(self, robot):
        self.robot, self.time, self.paused, self.sent, self.restarts = robot, 10**9, False, [], 0
        self.out_of_order = 0

    def newest(self):
        if not self.paused:
            self.time += 5 * MS
        return self.time

    def take(self, now):
        return JointState(self.robot.home.copy(), np.zeros(7), np.full(7, now), now)

    def restart(self):
        self.restarts += 1

    def take_goal(self):
        return None

    def take_estop(self):
        return False

    def send(self, values):
        self.sent.append(values)

    def report(self, command):
        pass


class QuickSteady(VirtualClock):
    """Steady time that passes without waiting."""

    def sleep_until(self, deadline):
        time.sleep(0)
        super().sleep_until(deadline)


@pytest.fixture
def simulated(bundle):
    runner = PolicyRunner(bundle, RunnerSettings())
    simulation = Simulation(runner.manifest.robot)
    loop = ControlLoop(runner, simulation, SimClock(simulation.newest, QuickSteady(10**9)))
    loop.start()
    yield loop, simulation
    simulation.paused = False
    loop.stop(2.0)


def wait_for(condition):
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_paused_simulation_is_told_nothing_is_sent_and_requests_are_answered(simulated):
    loop, simulation = simulated
    loop.call(loop.activate).result(5.0)
    wait_for(lambda: len(simulation.sent) > 5)
    simulation.paused = True
    wait_for(lambda: any(report.note for report in loop.reports()))
    sent = len(simulation.sent)
    assert loop.call(lambda state, now: now).result(5.0) > 0
    loop.request_estop("test")
    wait_for(lambda: loop.runner.estopped)
    assert len(simulation.sent) == sent
    simulation.paused = False
    wait_for(lambda: len(simulation.sent) > sent + 5)
    assert loop.runner.status().mode == Mode.ESTOPPED and not any(np.any(v) for v in simulation.sent[sent + 5 :])


def test_a_simulation_that_begins_anew_ends_the_activation_and_can_be_activated_again(simulated):
    loop, simulation = simulated
    loop.call(loop.activate).result(5.0)
    wait_for(lambda: len(simulation.sent) > 5)
    simulation.time = 10**8
    wait_for(lambda: not loop.runner.commanding)
    assert loop.runner.counters.faults_clock_step == 1 and simulation.restarts == 1
    assert "went back" in loop.runner.status().fault
    loop.call(loop.activate).result(5.0)
    sent = len(simulation.sent)
    wait_for(lambda: len(simulation.sent) > sent + 5)


def test_without_any_clock_an_activation_is_refused_and_not_waited_for_for_ever(bundle):
    runner = PolicyRunner(bundle, RunnerSettings())
    simulation = Simulation(runner.manifest.robot)
    loop = ControlLoop(runner, simulation, SimClock(lambda: None, QuickSteady(10**9)))
    simulation.take = lambda now: JointState(np.zeros(7), np.zeros(7), np.zeros(7, np.int64), 0, ("panda_joint1",))
    loop.start()
    with pytest.raises(StateError, match="no state was received"):
        loop.call(loop.activate).result(5.0)
    loop.stop(1.0)


# ------------------------------------------------------------------------------------------------------ over DDS


@pytest.mark.ros
def test_the_same_actions_at_any_real_time_factor(harness, domain, operator, export, tmp_path):
    """A joint log is played with /clock at half, once and three times real time: ticks fall on the same times of the
    simulation, and at each the policy gives the same action. (This policy does not look at its own last action, which
    would carry over when it was activated.)"""
    from qgf_msgs.msg import PolicyStatus

    bundle, log, seen = export(control_rate=50.0, reaching=True), Path(__file__).with_name("play_log.py"), {}
    for factor in (0.5, 1.0, 3.0):
        node = harness.policy_node(domain, tmp_path / f"node-{factor}", bundle=bundle, use_sim_time="true",
                                   autostart="true", tracking_limit="0.0", saturation_time="0.0", dry_run="true")
        player = harness.Child([log, factor], domain, tmp_path / f"player-{factor}")
        try:
            operator.reach(PolicyStatus.HOLDING, timeout=60.0)
            operator.forget()
            operator.send_goal()
            operator.reach(PolicyStatus.ACTIVE)
            operator.until(lambda: len(operator.commands) > 110, "110 commands", 60.0)
        finally:
            node.end()
            player.end()
        assert "Traceback" not in node.text()
        commands = [c for c in operator.commands if len(c.raw_action)]
        stamps = np.array([c.state_stamp.sec * 10**9 + c.state_stamp.nanosec for c in commands])
        # State and clock are two topics: on a busy machine a tick may still see the state 5 ms before.
        assert np.mean(np.diff(stamps) == 20 * MS) > 0.5, "a state of each control period of simulated time"
        assert np.mean(stamps % (20 * MS) == 0) > 0.5, "at multiples of the period"
        seen[factor] = {s % (2000 * MS): np.array(c.raw_action) for s, c in zip(stamps, commands, strict=True)}
    for other in (1.0, 3.0):
        common = set(seen[0.5]) & set(seen[other])
        assert len(common) > 50
        assert all(np.array_equal(seen[0.5][stamp], seen[other][stamp]) for stamp in common)
