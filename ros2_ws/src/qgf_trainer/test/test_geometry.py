# SPDX-License-Identifier: Apache-2.0
"""Geometry of a critic: a quadratic one by hand, numeric Hessians of small nets, and the command on a real run."""

import csv
import json
import math

import pytest
import torch

from qgf_trainer import training
from qgf_trainer.cli import train_main
from qgf_trainer.config import load_train_config
from qgf_trainer.geometry import Trajectory, derivatives, field_on, glance, measure, policy_slope, worst_slice
from qgf_trainer.geometry_cli import load_subject, main, visit
from qgf_trainer.networks import Actor, TwinCritic

H_AA = torch.tensor([[-2.0, 0.0], [0.0, -6.0]], dtype=torch.float64)
H_AS = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 4.0]], dtype=torch.float64)


def quadratic(s, a):
    """Q = a'H_aa a / 2 + a'H_as s: M = 4, lambda_max = -2 so mu = 2, trace = -8."""
    return 0.5 * (a @ H_AA * a).sum(-1) + (a @ H_AS * s).sum(-1)


def path(length=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Trajectory(
        torch.randn(length, 3, generator=g, dtype=torch.float64),
        torch.rand(length, 2, generator=g, dtype=torch.float64) * 2 - 1,
    )


def test_quadratic_by_hand():
    figures = measure(quadratic, [path(), path(5, 1)], margin=7.9)
    assert figures["points"] == 11
    assert figures["mixed_sup"] == figures["mixed_median"] == pytest.approx(4.0)
    assert figures["sharpness_inf"] == figures["sharpness_median"] == pytest.approx(2.0)
    assert figures["trace_mean"] == pytest.approx(-8.0)
    assert figures["bound"] == figures["ratio_median"] == pytest.approx(2.0)
    assert figures["concavity_rate"] == 1.0 and figures["concave_share"] == 1.0
    assert measure(quadratic, [path()], margin=8.1)["concavity_rate"] == 0.0


def test_a_glance_is_the_same_formula():
    points = path(9)
    whole = measure(quadratic, [points])
    assert glance(quadratic, points.observation, points.action) == pytest.approx(
        {name: whole[name] for name in ("mixed_sup", "sharpness_inf")}
    )


def test_it_is_logged_in_training_and_disturbs_nothing(tmp_path, monkeypatch):
    small = ["learner.hidden=[8, 8]", "batch_size=32", "warmup_steps=200", "steps_per_update=4", "checkpoint_steps=0"]
    weights = []
    for name, every in (("looked", 20), ("alone", 10**9)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(training, "_GEOMETRY_EVERY", every)
        agent = training.train(load_train_config("pendulum", small, steps=600), tmp_path / name).agent
        parameters = (*agent.actor.parameters(), *agent.critic.parameters())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    assert torch.equal(*weights)
    rows = list(csv.DictReader((tmp_path / "looked" / "progress.csv").open(encoding="utf-8")))
    assert float(rows[-1]["mixed_sup"]) > 0 and float(rows[-1]["sharpness_inf"]) > 0


def test_a_saddle_is_not_concave():
    figures = measure(lambda s, a: a[:, 0] ** 2 - 3 * a[:, 1] ** 2 + 0 * s.sum(1), [path()])
    assert figures["concave_share"] == 0.0 and figures["concavity_rate"] == 1.0  # trace 2 - 6 = -4
    assert figures["sharpness_inf"] == pytest.approx(2.0) and figures["mixed_sup"] == 0.0


def test_gradients_and_steps_by_hand():
    """Q = a s: the gradient is s. s = 1, 2, -1, -1: cosines 1, -1, 1; one flip in three. a moves 1, 2, 0.5 while s
    moves 1, 3, 0: the last counts for nothing."""
    s = torch.tensor([[1.0], [2.0], [-1.0], [-1.0]], dtype=torch.float64)
    a = torch.tensor([[0.0], [1.0], [-1.0], [-0.5]], dtype=torch.float64)
    figures = measure(lambda x, y: (x * y).sum(1), [Trajectory(s, a)])
    assert figures["gradient_cosine"] == pytest.approx(1 / 3)
    assert figures["gradient_sign_flips"] == pytest.approx(1 / 3)
    assert figures["lipschitz_max"] == pytest.approx(1.0)
    assert figures["bound"] == math.inf  # no curvature at all


def test_episodes_are_not_joined():
    ahead = Trajectory(torch.ones(2, 1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64))
    back = Trajectory(-ahead.observation, ahead.action)
    assert measure(lambda x, y: (x * y).sum(1), [ahead, back])["gradient_sign_flips"] == 0.0


@pytest.mark.parametrize("trajectories", [[], [path(1)]])
def test_too_little_is_refused(trajectories):
    with pytest.raises(ValueError, match="two points"):
        measure(quadratic, trajectories)


@pytest.mark.parametrize("hidden", [(16,), (12, 10), (8, 8, 8)])
def test_derivatives_equal_central_differences(hidden):
    torch.manual_seed(3)
    critic = TwinCritic(3, 2, hidden).double()
    points, h = path(4), 1e-4
    s, a = points.observation, points.action
    found = derivatives(critic.first, s, a)
    both = torch.cat((s, a), 1)

    def q(x):
        with torch.no_grad():
            return critic(x[:, :3], x[:, 3:])[0]

    unit = h * torch.eye(5, dtype=torch.float64)
    for i in range(2):
        up, down = both + unit[3 + i], both - unit[3 + i]
        assert torch.allclose(found.gradient[:, i], (q(up) - q(down)) / (2 * h), atol=1e-8)
        for j in range(5):
            second = q(up + unit[j]) - q(up - unit[j]) - q(down + unit[j]) + q(down - unit[j])
            exact = found.mixed[:, i, j] if j < 3 else found.curvature[:, i, j - 3]
            assert torch.allclose(exact, second / (4 * h * h), atol=1e-6)


def test_slope_of_the_policy_equals_its_jacobian():
    torch.manual_seed(0)
    actor = Actor(3, 2, (8, 8)).double()
    s = path().observation
    jacobians = torch.stack([torch.autograd.functional.jacobian(actor, row[None])[0, :, 0] for row in s])
    assert torch.allclose(policy_slope(actor, s), torch.linalg.svdvals(jacobians)[:, 0])


def test_plane_goes_through_the_pair_that_turns_most():
    wide = Trajectory(path().observation * torch.tensor([1.0, 1.0, 10.0], dtype=torch.float64), path().action)
    plane = worst_slice(quadratic, [wide])
    assert (plane.state_index, plane.action_index) == (2, 1)
    states, actions, gradient = field_on(quadratic, plane, 5)
    expected = -6 * actions[None, :] + 4 * states[:, None]  # row 1 of H_aa a + H_as s
    assert torch.allclose(gradient, expected)
    assert actions.tolist() == pytest.approx([-1, -0.5, 0, 0.5, 1])


def test_command_on_a_run(tmp_path, capsys):
    folder = tmp_path / "short"
    settings = ["--override", "learner.hidden=[16, 16]", "--override", "warmup_steps=300", "--progress", "none"]
    assert train_main(["--algo", "td3-plain", "--steps", "600", "--out", str(folder), *settings]) == 0
    capsys.readouterr()
    picture = tmp_path / "field.png"
    both = [str(folder), str(folder / "checkpoint.safetensors")]
    assert main([*both, "--episodes", "1", "--json", "--plot", str(picture)]) == 0
    told = json.loads(capsys.readouterr().out)
    first, second = told["runs"].values()
    assert first == second and first["points"] == 150
    assert picture.read_bytes().startswith(b"\x89PNG") and len(picture.read_bytes()) > 20_000
    # A second way: the critic out of the file, in raw observations, against what the command found.
    subject = load_subject(folder)
    trajectory = visit(subject, 1)[0]
    step = derivatives(subject.value, trajectory.observation, trajectory.action)
    assert first["mixed_sup"] == pytest.approx(float(torch.linalg.svdvals(step.mixed)[:, 0].max()), rel=1e-9)
    assert torch.allclose(subject.policy(trajectory.observation), trajectory.action, atol=1e-6)

    assert main([str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main([str(folder), "--plot", str(tmp_path / "field.txt")]) == 2
    assert ".png" in capsys.readouterr().err
