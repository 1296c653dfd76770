# SPDX-License-Identifier: Apache-2.0
"""The critic on board: a bundle that carries one, inferences in, the field's figures and an early warning out."""

import dataclasses

import numpy as np
import pytest
import torch

from qgf_core.action import ActionSpec
from qgf_core.bundle import save_bundle
from qgf_core.critic_file import pack_critic
from qgf_core.manifest import Box, make_manifest
from qgf_core.observation import ObservationTerm
from qgf_core.q_field import Critic, FieldFigures
from qgf_core.robot import load_robot, read_urdf
from qgf_monitor.config import load_config
from qgf_monitor.health import FieldHealth, Level
from qgf_monitor.monitor import Monitor

RATE, N_OBS, N_ACT = 50.0, 14, 7
CONFIG = dataclasses.replace(load_config(), critic_points=16)
START = 1_700_000_000_000_000_000


def bundle(path, critic: Critic | None, slope: float | None = None):
    robot = load_robot("panda")
    manifest = make_manifest(
        task="reach", robot=robot, observation=(ObservationTerm("joint_position"), ObservationTerm("joint_velocity")),
        action=ActionSpec("joint_velocity", tuple(robot.policy_velocity)), control_rate=RATE, delay_range=(0.0, 0.02),
        goal_region=Box((0.4, -0.2, 0.3), (0.6, 0.2, 0.6)), training={},
        evaluation={} if slope is None else {"critic_slope": slope}, urdf=read_urdf(robot))
    probes = np.random.default_rng(0).normal(size=(4, N_OBS))
    packed = None if critic is None else pack_critic(critic, probes, np.zeros((4, N_ACT)))
    save_bundle(path, torch.nn.Sequential(torch.nn.Linear(N_OBS, N_ACT), torch.nn.Tanh()), manifest, probes, packed)
    return str(path)


@pytest.fixture(scope="module")
def critic():
    rng = np.random.default_rng(3)
    layers = [rng.normal(size=(N_OBS + N_ACT, 12)), rng.normal(size=(12, 1))]
    return Critic([w.astype(np.float32) for w in layers], [np.zeros(12), np.zeros(1)], np.zeros(N_OBS), np.ones(N_OBS))


def inferred(monitor: Monitor, observations, actions, first: int = 0) -> None:
    names = list(load_robot("panda").joint_names)
    for k, (seen, action) in enumerate(zip(observations, actions, strict=True), first):
        monitor.recorder.policy_command(names, action, action, "velocity", k, 1 / RATE, "", START + k * 20_000_000,
                                        k / RATE, seen)


def test_figures_are_those_of_the_states_visited_last(tmp_path, critic):
    monitor = Monitor(CONFIG)
    monitor.use_bundle(bundle(tmp_path / "a.pt", critic, slope=0.3))
    assert monitor.visited(0.0) is None
    rng = np.random.default_rng(0)
    seen, done = rng.normal(size=(250, N_OBS)), rng.uniform(-1, 1, (250, N_ACT))
    inferred(monitor, seen, done)
    s, a = monitor.visited(5.0)
    rows = np.linspace(150, 249, 16).astype(int)  # two seconds at 50 Hz
    assert np.allclose(s, seen[rows], atol=1e-12) and np.allclose(a, done[rows], atol=1e-12)
    figures = monitor.critic.field_figures(s, a)
    monitor.take_field(figures, 5.0)
    reports = {judgement.report.source: judgement.report for judgement in monitor.judge(5.0)}
    told = reports["raw_action"]
    assert (told.critic_mixed_sup, told.critic_sharpness_inf, told.critic_slope) == dataclasses.astuple(figures)
    assert np.isnan(reports["command"].critic_slope)
    (entry,) = [entry for entry in monitor.diagnose(5.0) if entry.name == "critic"]
    assert f"{figures.slope / 0.3:.2g} times that in simulation" in entry.verdict.summary
    assert entry.values["mixed_sup"] == f"{figures.mixed_sup:.4g}"

    assert monitor.visited(7.0) is None  # nothing was inferred for two seconds
    monitor.take_field(None, 7.0)
    (entry,) = [entry for entry in monitor.diagnose(7.0) if entry.name == "critic"]
    assert entry.verdict.level == Level.STALE


def test_without_a_critic_nothing_is_said(tmp_path):
    monitor = Monitor(CONFIG)
    monitor.use_bundle(bundle(tmp_path / "a.pt", None))
    inferred(monitor, np.zeros((120, N_OBS)), np.zeros((120, N_ACT)))
    assert monitor.critic is None and monitor.visited(2.4) is None
    assert "critic" not in {entry.name for entry in monitor.diagnose(2.4)}


def test_observations_of_another_policy_are_left_alone(tmp_path, critic):
    monitor = Monitor(CONFIG)
    monitor.use_bundle(bundle(tmp_path / "a.pt", critic))
    inferred(monitor, np.zeros((120, N_OBS + 3)), np.zeros((120, N_ACT)))
    assert monitor.visited(2.4) is None


def test_the_warning_rises_by_the_ratio_to_simulation():
    health = FieldHealth(dataclasses.replace(CONFIG, raise_after=0.0, clear_after=0.0))
    found = []
    for usual, slope in ((None, 9.0), (1.0, 1.9), (1.0, 2.0), (1.0, 4.1), (1.0, 1.5)):
        health.usual = usual
        health.judge(FieldFigures(1.0, 1.0, slope), 0.0)
        found.append(health.verdict.level)
    assert found == [Level.OK, Level.OK, Level.WARN, Level.ERROR, Level.OK]
    assert "does not tell" not in health.verdict.summary
