# SPDX-License-Identifier: Apache-2.0
"""The real-time loop on a virtual clock: exact stamps, delays made up for, overload counted."""

import threading

import numpy as np
import pytest

from qgf_core.clocks import VirtualClock
from qgf_core.config import from_mapping
from qgf_core.robot import load_robot
from qgf_sim.reach import load_reach
from qgf_sim.real_time import RealTimeLoop
from qgf_sim.robot_double import DoubleSettings, RobotDouble, default_settings

MS = 1_000_000
PANDA = load_robot("panda")
START = 10**9


class Rig:
    """A loop whose states are recorded, and whose callback can take its time."""

    def __init__(self, **changes: object) -> None:
        values = default_settings(PANDA, load_reach()) | {"position_noise": 0.0, "velocity_noise": 0.0} | changes
        self.clock = VirtualClock(START)
        self.double = RobotDouble(PANDA, from_mapping(DoubleSettings, values, "sim_node"))
        self.loop = RealTimeLoop(self.double, self.clock, self._on_state)
        self.deadlines: list[int] = []
        self.simulated: list[int] = []
        self.positions: list[np.ndarray] = []
        self.delay = 0

    def _on_state(self, deadline, simulated, measured, truth) -> None:
        self.deadlines.append((deadline - START) // MS)
        self.simulated.append(simulated // MS)
        self.positions.append(truth.position[:7])
        self.clock.advance(self.delay * MS)
        self.delay = 0

    def cycles(self, count: int) -> None:
        for _ in range(count):
            self.loop.cycle()


@pytest.fixture
def rig():
    made = []

    def make(**changes: object) -> Rig:
        made.append(Rig(**changes))
        return made[-1]

    yield make
    for one in made:
        one.double.close()


def test_every_state_period_has_its_state_at_its_deadline(rig):
    every = rig()
    every.cycles(6)
    assert every.deadlines == [5, 10, 15, 20, 25, 30]
    assert every.simulated == [0, 5, 10, 15, 20, 25]
    fourth = rig(state_rate=50.0)
    fourth.cycles(12)
    assert fourth.deadlines == [5, 25, 45]


def test_a_command_acts_from_the_first_deadline_after_it(rig):
    told, untold = rig(), rig()
    told.cycles(10)
    untold.cycles(10)
    assert told.double.accept([0.4] * 7, told.clock.now()) == ""
    told.cycles(10)
    untold.cycles(10)
    differs = [not np.array_equal(a, b) for a, b in zip(told.positions, untold.positions, strict=True)]
    # The state at the next deadline still is the old one; the step from there is the command's first, and the drive's
    # latency is four steps: the fifth shows it.
    assert differs == [False] * 15 + [True] * 5


def test_a_short_delay_is_made_up_for(rig):
    late, prompt = rig(), rig()
    for one in (late, prompt):
        one.double.accept([0.4] * 7, one.clock.now())
    prompt.cycles(9)
    late.cycles(3)
    late.delay = 18
    late.cycles(1)  # the state at 20 ms takes until 38 ms
    late.cycles(2)
    assert late.deadlines == [5, 10, 15, 20, 40, 45]
    assert late.simulated == [0, 5, 10, 15, 35, 40]  # simulated and real time still go together
    assert (late.loop.late_steps, late.loop.dropped_steps) == (3, 0)
    # The arm is where it would have been without the delay.
    assert np.array_equal(late.positions[4:], prompt.positions[7:9])
    assert np.abs(late.positions[4] - late.positions[3]).max() > 1e-3


def test_made_up_steps_keep_the_phase_of_slower_states(rig):
    late = rig(state_rate=50.0)
    late.cycles(1)
    late.clock.advance(27 * MS)  # at 32 ms: the deadlines 10 ... 30 are past
    late.cycles(6)
    assert late.deadlines == [5, 35, 45]  # the state of 25 ms comes late, the next one is in its place


def test_a_long_delay_is_dropped_and_counted(rig):
    late = rig()
    late.cycles(2)
    late.delay = 1000
    late.cycles(2)
    assert (late.loop.late_steps, late.loop.dropped_steps) == (20, 179)
    assert late.deadlines == [5, 10, 15, 1015]
    health = late.loop.health()
    assert health.dropped_steps == health.newly_dropped == 179 and health.slow
    assert health.real_time_factor == 24 / (24 + 179)
    assert "cannot keep up" in health.problem


def test_health_is_of_the_time_since_the_last_report(rig):
    one = rig()
    one.loop.health()
    one.cycles(200)
    health = one.loop.health()
    assert health.real_time_factor == 1.0 and health.problem == "" and not health.slow
    one.double.accept([0.0] * 7, one.clock.now())
    one.double.accept([0.0] * 3, one.clock.now())
    one.cycles(200)
    health = one.loop.health()
    assert (health.accepted_commands, health.malformed_commands, health.newly_malformed) == (1, 1, 1)
    assert health.problem == "1 malformed commands refused"
    for _ in range(100):  # each step takes two periods
        one.delay = 10
        one.cycles(1)
    health = one.loop.health()
    assert health.newly_malformed == 0 and health.malformed_commands == 1
    assert health.late_steps > 90 and not health.slow
    health = one.loop.health()  # since then it stands still
    assert health.real_time_factor == 0.0 and health.slow


def test_a_timeout_is_told(rig):
    one = rig(command_timeout=0.05)
    one.double.accept([0.1] * 7, one.clock.now())
    one.cycles(20)
    assert one.loop.health().problem == "no command within the timeout, arm at rest"


def test_reset_is_done_by_the_loops_own_thread_before_its_next_state(rig):
    one = rig()
    one.double.accept([0.5] * 7, one.clock.now())
    one.cycles(100)
    assert np.abs(one.positions[-1] - PANDA.home).max() > 0.1
    answers = []
    asking = threading.Thread(target=lambda: answers.append(one.loop.reset(5.0)))
    asking.start()
    for _ in range(10_000):
        one.cycles(1)
        if not asking.is_alive():
            break
        asking.join(1e-3)
    assert answers == [True]
    one.cycles(1)
    assert one.positions[-1] == pytest.approx(PANDA.home, abs=1e-3)


def test_reset_without_a_loop_says_so(rig):
    assert rig().loop.reset(0.01) is False


def test_run_ends_when_told_and_forgets_the_time_before_it(rig):
    one = rig()
    one.clock.advance(5000 * MS)  # loading takes time; it is not late for that
    stop = threading.Event()
    one.double.accept([0.0] * 7, 0)
    count = iter(range(10))
    original = one.loop.cycle

    def cycle() -> None:
        original()
        if next(count) == 9:
            stop.set()

    one.loop.cycle = cycle  # type: ignore[method-assign]
    one.loop.run(stop)
    assert len(one.deadlines) == 10 and one.loop.late_steps == one.loop.dropped_steps == 0
    assert one.loop.health().real_time_factor == 1.0
