# SPDX-License-Identifier: Apache-2.0
"""The governor's steps on a virtual clock: each is taken in time, and taken back."""

from __future__ import annotations

import dataclasses

import pytest

from qgf_core.errors import ConfigError
from qgf_monitor.governor import Governor, GovernorConfig, Step, load_governor_config

CONFIG = GovernorConfig(engage_level=1, smooth_after=2.0, release_after=5.0, hold_after=4.0, hold_time=3.0,
                        estop_after=5.0, most_holds=1, reports_stale_after=1.0)
CALM, ROUGH = 0, 1


class Clock:
    """Steps a governor eight times a second, which floats hold exactly."""

    def __init__(self, config=CONFIG):
        self.governor, self.ticks, self.log = Governor(config), 0, []

    def go(self, seconds, mode="ACTIVE", **levels):
        for _ in range(round(8 * seconds)):
            change = self.governor.update(mode, levels, self.ticks / 8)
            if change:
                self.log.append((self.ticks / 8, change.step))
            self.ticks += 1
        return self.governor.step


def test_smoothed_in_time_and_released_only_when_the_raw_action_is_calm_too():
    clock = Clock()
    assert clock.go(1.875, command=ROUGH, raw_action=ROUGH) == Step.POLICY
    clock.go(0.125, command=CALM, raw_action=ROUGH)  # a break begins the count anew
    assert clock.go(2.0, command=ROUGH, raw_action=ROUGH) == Step.POLICY
    assert clock.go(0.125, command=ROUGH, raw_action=ROUGH) == Step.SMOOTH
    assert clock.go(60.0, command=CALM, raw_action=ROUGH) == Step.SMOOTH  # the smoothing is what calms the command
    assert clock.go(60.0, command=CALM) == Step.SMOOTH  # nothing is known of the raw action
    assert clock.go(5.0, command=CALM, raw_action=CALM) == Step.SMOOTH
    assert clock.go(0.125, command=CALM, raw_action=CALM) == Step.POLICY
    assert [step for _, step in clock.log] == [Step.SMOOTH, Step.POLICY]


def test_hold_then_another_try_then_the_emergency_stop_and_back():
    clock = Clock()
    clock.go(30.0, command=ROUGH, raw_action=ROUGH)
    # Smoothed at 2.0, held 4 s of roughness after that; a hold of 3 s; one more hold than allowed is a stop.
    assert clock.log == [(2.0, Step.SMOOTH), (6.125, Step.HOLD), (9.125, Step.SMOOTH), (13.25, Step.ESTOP)]
    assert clock.go(10.0, mode="ESTOPPED") == Step.ESTOP
    assert clock.go(0.125, mode="INACTIVE") == Step.POLICY and clock.governor.holds == 0  # a person has reset it
    assert clock.go(2.25, command=ROUGH) == Step.SMOOTH  # and it is awake again


def test_a_held_arm_that_shakes_is_stopped_and_a_calm_one_is_tried_again():
    clock = Clock(dataclasses.replace(CONFIG, most_holds=5))
    clock.go(6.25, command=ROUGH, raw_action=ROUGH)
    assert clock.governor.step == Step.HOLD
    assert clock.go(4.5, mode="HOLDING", joint_velocity=ROUGH) == Step.HOLD  # not tried again while it shakes
    assert clock.go(0.75, mode="HOLDING", joint_velocity=ROUGH) == Step.ESTOP
    other = Clock()
    other.go(6.25, command=ROUGH, raw_action=ROUGH)
    assert other.go(3.25, mode="HOLDING", joint_velocity=CALM) == Step.SMOOTH


def test_a_release_forgives_the_holds():
    clock = Clock()
    clock.go(10.0, command=ROUGH, raw_action=ROUGH)
    assert clock.governor.holds == 1
    clock.go(6.0, command=CALM, raw_action=CALM)
    assert clock.governor.step == Step.POLICY and clock.governor.holds == 0


@pytest.mark.parametrize("mode", ["INACTIVE", "HALTING", "ESTOPPED", "UNCONFIGURED"])
def test_an_ended_activation_begins_anew(mode):
    clock = Clock()
    clock.go(1.5, command=ROUGH)
    assert clock.go(60.0, mode=mode, command=ROUGH) == Step.POLICY
    clock.go(2.25, command=ROUGH)
    assert clock.go(0.125, mode=mode) == Step.POLICY


def test_nothing_is_done_on_hearsay():
    """A monitor or a policy that has vanished neither engages nor releases anything."""
    clock = Clock()
    assert clock.go(60.0, mode="") == Step.POLICY
    assert clock.go(60.0) == Step.POLICY
    clock.go(2.25, command=ROUGH)
    assert clock.go(60.0, mode="") == Step.SMOOTH and clock.go(60.0) == Step.SMOOTH


def test_error_level_only():
    clock = Clock(dataclasses.replace(CONFIG, engage_level=2))
    assert clock.go(60.0, command=1) == Step.POLICY
    assert clock.go(2.25, command=2) == Step.SMOOTH


def test_the_configuration(tmp_path):
    assert load_governor_config().most_holds >= 0
    with pytest.raises(ValueError, match="engage_level"):
        dataclasses.replace(CONFIG, engage_level=3)
    with pytest.raises(ValueError, match="hold_after"):
        dataclasses.replace(CONFIG, hold_after=0.0)
    (tmp_path / "bad.yaml").write_text("engage: 1\n")
    with pytest.raises(ConfigError, match=r"bad.yaml"):
        load_governor_config(tmp_path / "bad.yaml")
