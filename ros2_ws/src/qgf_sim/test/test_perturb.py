# SPDX-License-Identifier: Apache-2.0
"""Randomised arms: distributions, what they reach, seeds, and that nothing changes where nothing is drawn."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from qgf_core.config import from_mapping
from qgf_core.errors import ConfigError
from qgf_core.robot import load_robot
from qgf_sim.drive import ActuatorSpec, actuator_of
from qgf_sim.engine import PhysicsSpec
from qgf_sim.env import ArmEnv
from qgf_sim.perturb import Distribution, Perturbation, draw, load_perturbation
from qgf_sim.sensors import SensorSpec

PANDA = load_robot("panda")
NOISE = SensorSpec(0.002, 0.02)
HARSH, TRAIN = load_perturbation("harsh"), load_perturbation("train")


def draws(**distribution):
    generator = np.random.default_rng(0)
    return np.array([Distribution(**distribution).draw(generator) for _ in range(4000)])


def test_distributions_have_their_shape():
    even = draws(uniform=(2.0, 6.0))
    assert even.min() >= 2.0 and even.max() <= 6.0
    assert np.histogram(even, 4, (2.0, 6.0))[0] == pytest.approx([1000] * 4, abs=110)
    log = draws(log_uniform=(0.5, 8.0))
    assert log.min() >= 0.5 and log.max() <= 8.0
    assert np.histogram(np.log2(log), 4, (-1, 3))[0] == pytest.approx([1000] * 4, abs=110)
    normal = draws(normal=(3.0, 0.5))
    assert normal.mean() == pytest.approx(3.0, abs=0.03) and normal.std() == pytest.approx(0.5, rel=0.05)
    assert set(draws(fixed=7.0)) == {7.0}


@pytest.mark.parametrize(("data", "words"), [
    ({"delay": {}}, "p.yaml: delay: give one of uniform, log_uniform, normal, fixed, not none"),
    ({"delay": {"fixed": 1.0, "normal": [0, 1]}}, "not normal and fixed"),
    ({"delay": {"uniform": [2, 1]}}, "uniform: 2.0 is above 1.0"),
    ({"delay": {"log_uniform": [0, 1]}}, "log_uniform: 0.0 must be positive"),
    ({"delay": {"normal": [0, -1]}}, "standard deviation -1.0"),
    ({"delay": {"fixed": float("nan")}}, "p.yaml: delay.fixed: nan is not finite"),
    ({"delay": 0.02}, "p.yaml: delay: expected a mapping"),
    ({"delai": {"fixed": 1.0}}, "p.yaml: delai: unknown key"),
])
def test_mistakes_are_one_line_that_names_them(data, words):
    with pytest.raises(ConfigError) as caught:
        from_mapping(Perturbation, data, "p.yaml")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_drawn_is_the_robots_own_arm_and_draws_nothing():
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    drawn = draw(Perturbation(), PANDA, NOISE, generator)
    assert drawn == (actuator_of(PANDA.drive), PhysicsSpec(), NOISE, 0.0, {})
    assert generator.bit_generator.state == before


def test_harsh_is_what_it_says():
    drawn = draw(HARSH, PANDA, NOISE, np.random.default_rng(0))
    assert drawn.actuator == ActuatorSpec(delay=0.04, time_constant=0.06, gain=0.8, coulomb=0.5)
    assert drawn.physics == PhysicsSpec(payload=1.0)
    assert drawn.sensor == SensorSpec(0.004, 0.04, dropout=0.05) and drawn.period_jitter == 0.1
    assert drawn.values == {"delay": 0.02, "time_constant": 1.5, "gain": 0.8, "coulomb": 0.5, "payload": 1.0,
                            "noise": 2.0, "dropout": 0.05, "period_jitter": 0.1}


def test_every_quantity_reaches_its_place_and_is_told():
    nominal = draw(Perturbation(), PANDA, NOISE, np.random.default_rng(0))
    for field in dataclasses.fields(Perturbation):
        drawn = draw(Perturbation(**{field.name: Distribution(fixed=0.3)}), PANDA, NOISE, np.random.default_rng(0))
        expected = {"position_bias": [0.3] * 7, "centre_of_mass": [0.3] * 39}.get(field.name, 0.3)
        assert drawn.values[field.name] == expected
        halfway = draw(Perturbation(**{field.name: Distribution(fixed=0.3)}), PANDA, NOISE, np.random.default_rng(0),
                       share=0.5).values[field.name]
        towards = {"top_speed": 0.3, "stiffness": 25.15, "noise": 0.65, "gain": 0.65}
        factors = ("time_constant", "mass_factor", "inertia_factor", "effort_factor", "joint_damping")
        half = towards.get(field.name, 0.65 if field.name in factors else 0.15)
        assert halfway == pytest.approx([half] * len(expected) if isinstance(expected, list) else half), field.name
        assert drawn[:4] != nominal[:4], field.name
    tilted = draw(Perturbation(gravity_tilt=Distribution(fixed=0.3)), PANDA, NOISE, np.random.default_rng(0))
    gravity = np.array(tilted.physics.gravity)
    assert np.linalg.norm(gravity) == pytest.approx(9.81) and gravity[2] == pytest.approx(-9.81 * np.cos(0.3))
    assert np.arctan2(gravity[1], gravity[0]) == pytest.approx(tilted.values["gravity_direction"])


def test_values_that_make_no_sense_are_cut():
    wild = Perturbation(**{name: Distribution(fixed=-5.0) for name in
                           ("delay", "time_constant", "gain", "coulomb", "mass_factor", "payload", "noise", "dropout")})
    drawn = draw(wild, PANDA, NOISE, np.random.default_rng(0))
    assert drawn.actuator.delay == 0.0 and drawn.actuator.time_constant == 0.0 and drawn.actuator.coulomb == 0.0
    assert drawn.physics.mass_factor > 0.0 and drawn.physics.payload == 0.0 and drawn.sensor.position_noise == 0.0


def rollout(env, seed, steps=40):
    generator = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    digest = hashlib.sha256(observation.tobytes() + repr(sorted(info["perturbation"].items())).encode())
    for _ in range(steps):
        action = generator.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, _, _, _, info = env.step(action)
        digest.update(observation.tobytes() + info["joint_velocity"].tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("engine", ["pybullet", "mujoco"])
def test_seeds_reproduce_bit_for_bit_in_this_and_in_another_process(engine):
    first, second = (ArmEnv("panda", engine=engine, perturbation=TRAIN) for _ in range(2))
    expected = rollout(first, 7)
    assert rollout(second, 8) != expected
    assert rollout(second, 7) == expected  # the arms of the episodes before leave no trace
    first.close()
    second.close()
    code = ("import importlib.util as u, sys; s = u.spec_from_file_location('t', sys.argv[1]); "
            "t = u.module_from_spec(s); s.loader.exec_module(t); "
            "print(t.rollout(t.ArmEnv('panda', engine=sys.argv[2], perturbation=t.TRAIN), 7))")
    run = subprocess.run([sys.executable, "-c", code, __file__, engine], capture_output=True, text=True, timeout=60,
                         check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert run.stdout.split() == [expected]


def test_goals_and_starts_stay_those_of_the_seed_and_each_episode_has_its_own_arm():
    plain, random = ArmEnv("panda"), ArmEnv("panda", perturbation=TRAIN)
    told = []
    for seed in (3, 4):
        (_, expected), (_, info) = plain.reset(seed=seed), random.reset(seed=seed)
        assert np.array_equal(expected["goal"], info["goal"]) and np.array_equal(expected["start"], info["start"])
        assert expected["perturbation"] == {}
        told.append(info["perturbation"])
    assert set(told[0]) == {f.name for f in dataclasses.fields(Perturbation) if getattr(TRAIN, f.name)} | {
        "gravity_direction"}
    assert all(told[0][name] != told[1][name] for name in told[0] if name != "position_quantum")
    for env in (plain, random):
        env.close()


def answer(perturbation, steps=75, **more):
    """True joint velocities (steps, 7) of the Panda whose upper three joints are asked to turn, without noise."""
    env = ArmEnv("panda", sensor_noise=False, perturbation=perturbation, **more)
    env.reset(seed=0, options={"start": PANDA.home})
    action = np.zeros(7, np.float32)
    action[[0, 3]] = 0.4
    log = np.array([env.step(action)[4]["joint_velocity"] for _ in range(steps)])
    env.close()
    return log


@pytest.mark.parametrize("engine", ["pybullet", "mujoco"])
def test_what_is_drawn_is_felt_by_the_arm(engine):
    nominal = answer(None, engine=engine)
    speed = 0.4 * PANDA.policy_velocity[0]
    assert nominal[-1, 0] == pytest.approx(speed, rel=0.03)
    late = answer(Perturbation(delay=Distribution(fixed=0.04)), engine=engine)
    assert late[2:, 0] == pytest.approx(nominal[:-2, 0], abs=0.01)  # by two control periods
    weak = answer(Perturbation(gain=Distribution(fixed=0.5)), engine=engine)
    assert weak[-1, 0] == pytest.approx(0.5 * speed, rel=0.03)
    sticky = answer(Perturbation(coulomb=Distribution(fixed=5.0)), engine=engine)
    assert sticky[-1, 0] == pytest.approx(speed - 5.0 / 50.0, rel=0.03)
    slow = answer(Perturbation(time_constant=Distribution(fixed=4.0)), engine=engine)
    assert slow[5, 0] < 0.6 * nominal[5, 0] and slow[-1, 0] == pytest.approx(speed, rel=0.03)
    loose = answer(Perturbation(effort_factor=Distribution(fixed=0.02)), engine=engine)
    assert np.abs(loose[:, 1]).max() > 0.1  # gravity is stronger than its motors


def test_the_arm_is_its_own_again_without_the_perturbation():
    env, plain = ArmEnv("panda", perturbation=dataclasses.replace(TRAIN, payload=None)), ArmEnv("panda")
    rollout(env, 1)
    env.without_perturbation()
    assert rollout(env, 7) == rollout(plain, 7)
    env.close()
    plain.close()


def test_jitter_of_the_period_moves_the_arm_by_the_time_that_passed():
    env = ArmEnv("panda", sensor_noise=False, perturbation=Perturbation(period_jitter=Distribution(fixed=0.5)))
    env.reset(seed=0, options={"start": PANDA.home})
    action = np.zeros(7, np.float32)
    action[0] = 0.5
    way = []
    for _ in range(100):
        before = env.joint_position[0]
        env.step(action)
        way.append(env.joint_position[0] - before)
    env.close()
    ratio = np.array(way[30:]) / (0.02 * 0.5 * PANDA.policy_velocity[0])
    assert ratio.min() >= 0.49 and ratio.max() <= 1.51 and np.ptp(ratio) > 0.8
    assert ratio.mean() == pytest.approx(1.0, abs=0.15)
