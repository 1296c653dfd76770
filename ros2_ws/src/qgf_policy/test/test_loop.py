# SPDX-License-Identifier: Apache-2.0
"""The loop with a port of its own: on a virtual clock cycle by cycle, and as a real thread."""

import gc
import threading
import time

import numpy as np
import pytest

from qgf_core.clocks import SteadyClock, VirtualClock
from qgf_core.errors import StateError
from qgf_policy.joint_state import JointState
from qgf_policy.loop import ControlLoop, GoalMessage
from qgf_policy.runner import PolicyRunner
from qgf_policy.settings import RunnerSettings
from qgf_policy.status import Mode

GOAL = GoalMessage((0.5, 0.1, 0.4), "panda_link0", 5)
MS = 1_000_000


class FakePort:
    """An arm that follows at once and never fails, and what it was sent."""

    def __init__(self, clock, robot):
        self.clock, self.robot = clock, robot
        self.sent, self.reported, self.goals, self.estop = [], [], [], False
        self.out_of_order = 0
        self.work = 0
        self.fault = None

    def take(self, now):
        if self.fault is not None:
            raise self.fault
        n = len(self.robot.joints)
        return JointState(self.robot.home.copy(), np.zeros(n), np.full(n, now), now)

    def take_goal(self):
        return self.goals.pop(0) if self.goals else None

    def take_estop(self):
        asked, self.estop = self.estop, False
        return asked

    def send(self, values):
        self.sent.append((self.clock.now(), values))
        if self.work:
            self.clock.advance(self.work)

    def report(self, command):
        self.reported.append(command)


@pytest.fixture
def virtual(bundle):
    """A loop on a virtual clock, its port, and a way to run cycles."""
    clock = VirtualClock(10**9)
    runner = PolicyRunner(bundle, RunnerSettings(ramp_duration=0.0))
    port = FakePort(clock, runner.manifest.robot)
    loop = ControlLoop(runner, port, clock)

    def cycles(n):
        for _ in range(n):
            loop.cycle(clock.now())
            clock.advance(10 * MS)

    loop.cycles = cycles
    return loop, port, clock


@pytest.mark.parametrize(("computing", "delay", "leaves"), [
    (0, 0.0, 0), (100_000, 0.0, 100_000),
    (0, 3e-4, 300_000), (100_000, 3e-4, 300_000), (285_000, 3e-4, 285_000), (900_000, 3e-4, 900_000),
    (0, 1.0, 4 * MS),  # 0.4 of the period at most
])
def test_commands_leave_evenly_however_long_each_took(bundle, computing, delay, leaves):
    clock = VirtualClock(10**9)
    runner = PolicyRunner(bundle, RunnerSettings(ramp_duration=0.0))
    port = FakePort(clock, runner.manifest.robot)
    loop = ControlLoop(runner, port, clock, send_delay=delay)
    take = port.take

    def slow_take(now):
        clock.advance(computing)
        return take(now)

    port.take = slow_take
    loop.call(runner.activate)
    for k in range(3):
        deadline = 10**9 + k * 10 * MS
        clock.sleep_until(deadline)
        loop.cycle(deadline)
        assert port.sent[-1][0] == deadline + leaves
    assert len(port.reported) == len(port.sent) == 3
    timing = loop._timing.report()
    assert timing.stage_mean[-1] == pytest.approx(0.0, abs=1e-12)  # waiting is no work


@pytest.mark.parametrize(("apart_below", "later"), [(5 * MS, 0), (20 * MS, 1)])
def test_a_report_is_told_once_and_in_a_period_of_its_own_where_periods_are_short(
    bundle, monkeypatch, apart_below, later
):
    """The bundle's period is 10 ms; a report is made in its tenth period from the first on."""
    monkeypatch.setattr("qgf_policy.loop._TOLD_APART", apart_below)
    clock, told = VirtualClock(10**9), []
    runner = PolicyRunner(bundle, RunnerSettings(ramp_duration=0.0))
    loop = ControlLoop(runner, FakePort(clock, runner.manifest.robot), clock, tell=lambda report: told.append(report))
    counts = []
    for _ in range(25):
        loop.cycle(clock.now())
        clock.advance(10 * MS)
        counts.append(len(told))
    made = loop.reports()
    assert [counts.index(k + 1) for k in range(3)] == [later, 10 + later, 20 + later]
    assert len(told) == len(made) == 3 and all(one is other for one, other in zip(told, made, strict=True))


def test_jobs_run_between_periods_with_the_state_of_the_period(virtual):
    loop, port, _ = virtual
    port.goals.append(GOAL)
    future = loop.call(loop.runner.activate)
    loop.cycles(3)
    assert future.done() and future.exception() is None
    assert len(port.sent) == 3 and [c.sequence for c in port.reported] == [0, 1, 2]
    # The command does not wait for a goal, which is in force from the next period on.
    assert [c.goal_stamp for c in port.reported] == [0, 5, 5]


def test_a_refused_job_tells_its_caller_and_the_loop_goes_on(virtual):
    loop, port, _ = virtual
    loop.runner.estop("test")
    future = loop.call(loop.runner.activate)
    loop.cycles(2)
    with pytest.raises(StateError, match="latched"):
        future.result(0)
    assert port.sent == []


def test_a_refused_goal_is_counted_and_told_in_the_report(virtual):
    loop, port, _ = virtual
    port.goals.append(GOAL._replace(frame="world"))
    loop.cycles(10)
    report = loop.reports()[-1]
    assert report.status.counters.faults_rejected_goal == 1 and "frame 'world'" in report.goal_refusal


def test_an_emergency_stop_works_in_the_very_next_period_from_both_sides(virtual):
    loop, port, _ = virtual
    loop.call(loop.runner.activate)
    loop.cycles(2)
    loop.request_estop("service")
    loop.cycles(1)
    assert loop.runner.status().mode == Mode.ESTOPPED and "service" in port.reported[-1].reason
    loop.cycles(5)
    loop.runner.reset_estop()
    loop.cycles(20)
    port.estop = True
    loop.cycles(1)
    assert loop.runner.status().mode == Mode.ESTOPPED and loop.runner.counters.estops == 2


def test_dry_run_reports_everything_and_sends_nothing(bundle):
    clock = VirtualClock(10**9)
    runner = PolicyRunner(bundle, RunnerSettings())
    port = FakePort(clock, runner.manifest.robot)
    loop = ControlLoop(runner, port, clock, publish=False)
    loop.call(runner.activate)
    for _ in range(5):
        loop.cycle(clock.now())
        clock.advance(10 * MS)
    assert port.sent == [] and len(port.reported) == 5


def test_reports_come_ten_times_a_second_with_counters_of_their_own(virtual):
    loop, _, _ = virtual
    loop.call(loop.runner.activate)
    loop.cycles(31)
    reports = loop.reports()
    assert len(reports) == 4 and loop.reports() == []
    counts = [r.status.counters.faults_stale_goal for r in reports]
    assert counts == [1, 11, 21, 31]
    assert [e.mode for r in reports for e in r.events] == [Mode.RAMPING, Mode.HOLDING]


def test_work_longer_than_a_period_and_left_out_periods_are_counted(virtual):
    loop, port, clock = virtual
    loop.call(loop.runner.activate)
    loop.cycles(1)
    port.work = 10 * MS + 1
    loop.cycle(clock.now())
    port.work = 0
    loop.cycle(clock.now(), skipped=3)
    assert loop.runner.counters.overruns == 1 and loop.runner.counters.skipped_cycles == 3


# ------------------------------------------------------------------------------------------------ as a real thread


@pytest.fixture
def threaded(bundle):
    """A loop in its own thread at 200 Hz commands."""
    clock = SteadyClock()
    runner = PolicyRunner(bundle, RunnerSettings(command_rate=200.0, ramp_duration=0.0))
    port = FakePort(clock, runner.manifest.robot)
    port.goals.append(GOAL)
    loop = ControlLoop(runner, port, clock)
    yield loop, port
    loop.stop(2.0)
    assert not loop.alive


def wait_for(condition, timeout=5.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_stop_brings_the_arm_to_rest_first_and_gives_the_garbage_collector_back(threaded):
    loop, port = threaded
    loop.start()
    assert loop.alive and not gc.isenabled()
    loop.call(loop.activate).result(2.0)
    wait_for(lambda: len(port.sent) > 20 and np.abs(port.sent[-1][1]).max() > 0.1)
    assert loop.stop(2.0)
    assert not loop.alive and gc.isenabled()
    assert np.all(port.sent[-1][1] == 0.0)
    velocities = np.array([v for _, v in port.sent])
    limit = loop.runner.manifest.robot.acceleration_limit
    assert np.all(np.abs(np.diff(velocities, axis=0)) * 200.0 <= limit + 1e-9)


def test_an_error_nobody_foresaw_stops_the_arm_within_its_limits(threaded, monkeypatch):
    loop, port = threaded
    died = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: died.append(arguments.exc_value))
    loop.start()
    loop.call(loop.activate).result(2.0)
    wait_for(lambda: len(port.sent) > 20 and np.abs(port.sent[-1][1]).max() > 0.1)
    port.fault = KeyError("a bug")
    wait_for(lambda: not loop.alive)
    assert isinstance(died[0], KeyError), "it is not swallowed"
    assert np.all(port.sent[-1][1] == 0.0)
    velocities = np.array([v for _, v in port.sent])
    limit = loop.runner.manifest.robot.acceleration_limit
    assert np.all(np.abs(np.diff(velocities, axis=0)) * 200.0 <= limit + 1e-9)


def test_what_prepare_raises_is_raised_by_start(bundle):
    def fail():
        raise ValueError("warm-up failed")

    runner = PolicyRunner(bundle, RunnerSettings())
    loop = ControlLoop(runner, FakePort(SteadyClock(), runner.manifest.robot), SteadyClock(), prepare=fail)
    with pytest.raises(ValueError, match="warm-up failed"):
        loop.start()
    wait_for(lambda: not loop.alive)
    assert loop.stop(1.0)
