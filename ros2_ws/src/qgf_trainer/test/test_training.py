# SPDX-License-Identifier: Apache-2.0
"""The training loop as processes: output, resuming after SIGKILL, stopping on a signal, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from qgf_core.bundle import load_bundle
from qgf_trainer.cli import evaluate_main, train_main
from qgf_trainer.config import load_train_config
from qgf_trainer.training import train

SETTINGS = [
    "--override",
    "learner.hidden=[32, 32]",
    "--override",
    "warmup_steps=600",
    "--override",
    "checkpoint_steps=600",
]
STEPS = 2400


def command(folder, *more, steps=STEPS):
    return [
        sys.executable,
        "-m",
        "qgf_trainer.cli",
        "train",
        "--steps",
        str(steps),
        "--out",
        str(folder),
        "--progress",
        "json",
        *SETTINGS,
        *more,
    ]


def environment():
    paths = [str(Path(__file__).parents[2] / name) for name in ("qgf_core", "qgf_sim", "qgf_trainer")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }


def events(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    done = subprocess.run(command(folder), env=environment(), capture_output=True, text=True, check=True, timeout=300)
    return folder, events(done.stdout)


def test_it_writes_what_it_promises(finished):
    folder, told = finished
    assert {"bundle.pt", "evaluation.json", "config.json", "progress.csv", "checkpoint.safetensors"} <= {
        p.name for p in folder.iterdir()
    }
    assert list((folder / "tensorboard").glob("events.*"))
    assert [e["event"] for e in told][-2:] == ["evaluating", "result"]
    figures = told[-1]["figures"]
    assert figures == json.loads((folder / "evaluation.json").read_text())
    bundle = load_bundle(folder / "bundle.pt")
    assert bundle.sha256 == told[-1]["sha256"]
    assert bundle.manifest.evaluation["success"] == figures["success"]
    assert bundle.manifest.training["config"]["field"]["form"] == "scale_free"
    assert max(e["step"] for e in told if e["event"] == "progress") == STEPS


def test_bundle_evaluates_to_the_trainers_own_figures(finished, capsys):
    folder, told = finished
    assert evaluate_main([str(folder / "bundle.pt"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    # Batch 1 through the frozen module rounds differently than the eager actor; the closed loop carries that a little
    # further.
    for name in ("success", "return", "final_distance_mm", "sm", "mean_abs_delta"):
        assert figures[name] == pytest.approx(told[-1]["figures"][name], rel=1e-3, abs=1e-4)


def test_bundle_evaluates_on_the_second_engine(finished, capsys):
    folder, told = finished
    arguments = [str(folder / "bundle.pt"), "--json", "--engine", "mujoco"]
    assert evaluate_main(arguments) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["engine"] == "mujoco" and figures["episodes"] == told[-1]["figures"]["episodes"]
    # The same goals and nearly the same answer of the arm, by other physics.
    assert figures["return"] != told[-1]["figures"]["return"]
    assert figures["return"] == pytest.approx(told[-1]["figures"]["return"], rel=0.1, abs=3.0)


def test_bundle_evaluates_on_a_perturbed_arm(finished, capsys):
    folder, _ = finished
    assert evaluate_main([str(folder / "bundle.pt"), "--json", "--perturb", "harsh", "--episodes", "5"]) == 0
    harsh = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert evaluate_main([str(folder / "bundle.pt"), "--json", "--episodes", "5"]) == 0
    plain = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (harsh["perturb"], plain["perturb"]) == ("harsh", "")
    assert abs(harsh["return"] - plain["return"]) > 0.1
    assert evaluate_main([str(folder / "bundle.pt"), "--perturb", "cruel"]) == 2
    assert "unknown perturb 'cruel'; choose one of: harsh, train" in capsys.readouterr().err


def test_training_on_randomised_arms_differs_and_ends_on_the_robots_own():
    settings = ["learner.hidden=[32, 32]", "warmup_steps=400", "checkpoint_steps=0"]
    totals = []
    for perturb in ("", "train"):
        result = train(load_train_config("reach", settings, steps=600, perturb=perturb))
        _, info = result.env.reset(seed=1)
        assert info["perturbation"] == {}
        result.env.close()
        totals.append(next(result.agent.actor.parameters()).detach().numpy().copy())
    assert not np.array_equal(*totals)


def test_the_losses_know_the_observations_histories():
    settings = ["learner.hidden=[8, 8]", "warmup_steps=150", "field.common=0.0"]
    agent = train(load_train_config("reach", settings, steps=600)).agent
    mixing = agent.stabiliser._mixing
    assert mixing.shape == (44, 44) and agent.stabiliser.latest["mixed_partial"] > 0
    # position 7 x 1, velocity 7 x 3, previous action 7 x 1, tool error 3 x 3
    kept = mixing.diagonal().tolist()
    assert kept == pytest.approx([0.0] * 7 + [2 / 3] * 21 + [0.0] * 7 + [2 / 3] * 9)


def test_sigkill_and_resume_gives_the_same_result(finished, tmp_path):
    whole, _ = finished
    folder = tmp_path / "killed"
    with subprocess.Popen(command(folder), env=environment(), stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoint.safetensors").exists():  # killed at whatever point follows its first checkpoint
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    assert not (folder / "bundle.pt").exists()
    again = subprocess.run(
        command(folder, "--resume"), env=environment(), capture_output=True, text=True, check=True, timeout=300
    )
    first = next(e for e in events(again.stdout) if e["event"] == "progress")
    assert first["step"] > 600, "it started from the beginning"
    one, other = load_file(whole / "checkpoint.safetensors"), load_file(folder / "checkpoint.safetensors")
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name], equal_nan=True), name
    drop = {"training_time_s"}
    a, b = (json.loads((f / "evaluation.json").read_text()) for f in (whole, folder))
    assert {k: v for k, v in a.items() if k not in drop} == {k: v for k, v in b.items() if k not in drop}


def test_sac_makes_a_bundle_of_its_mean_action(tmp_path, capsys):
    folder = tmp_path / "sac"
    small = [*SETTINGS, "--override", "sac.hidden=[32, 32]"]
    assert train_main(["--algo", "sac", "--steps", "1200", "--out", str(folder), "--progress", "json", *small]) == 0
    told = events(capsys.readouterr().out)[-1]
    bundle = load_bundle(folder / "bundle.pt")
    assert bundle.sha256 == told["sha256"] and bundle.manifest.training["config"]["algorithm"] == "sac"
    stored = load_file(folder / "checkpoint.safetensors")
    raw = np.random.default_rng(0).normal(size=bundle.observation_size).astype(np.float32)
    h = raw
    for layer in ("trunk.0", "trunk.2"):
        z = stored[f"actor.{layer}.weight"] @ h + stored[f"actor.{layer}.bias"]
        h = z / (1 + np.exp(-z))
    assert np.allclose(bundle.act(raw), np.tanh(stored["actor.mean.weight"] @ h + stored["actor.mean.bias"]), atol=1e-5)
    assert stored["log_temperature"][0] != pytest.approx(np.log(0.2)), "the temperature was learned"


def test_a_stop_within_an_episode_is_gone_on_from_to_the_same_result(tmp_path):
    """Also where the replay buffer is full, so that what is stored since has overwritten what was to be saved."""
    settings = ["learner.hidden=[16, 16]", "warmup_steps=600", "checkpoint_steps=0", "buffer_size=700"]
    config = load_train_config("reach", settings, steps=1800)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    train(config, whole).env.close()
    asked = iter(range(10_000))
    # Asked once in each of an episode's 150 periods and at its end: in the midst of the second episode.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qgf_trainer.training._POINT_EVERY", np.inf)  # noted at the beginning only
        first = train(config, stopped, should_stop=lambda: next(asked) >= 230)
        first.env.close()
    assert first.interrupted and first.steps == 0 and next(asked) == 231  # at once, and nothing newer was noted
    point = load_file(stopped / "checkpoint.safetensors")
    assert point["buffer.position"].tolist() == [0, 0]
    asked = iter(range(10_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qgf_trainer.training._POINT_EVERY", 0.0)
        second = train(config, stopped, resume=True, should_stop=lambda: next(asked) >= 151 + 151 + 77)
        second.env.close()
    assert second.interrupted and second.steps == 1200
    point = load_file(stopped / "checkpoint.safetensors")
    assert point["buffer.position"].tolist() == [500, 700] and len(point["buffer.reward"]) == 700
    train(config, stopped, resume=True).env.close()
    one, other = load_file(whole / "checkpoint.safetensors"), load_file(stopped / "checkpoint.safetensors")
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name], equal_nan=True), name


def test_a_time_limit_ends_with_a_bundle(tmp_path, capsys):
    folder = tmp_path / "short"
    arguments = ["--steps", "500000", "--minutes", "0.01", "--out", str(folder), "--progress", "json", *SETTINGS]
    assert train_main(arguments) == 0
    told = events(capsys.readouterr().out)
    assert told[-1]["event"] == "result"
    bundle = load_bundle(folder / "bundle.pt")
    assert 600 <= bundle.manifest.training["steps"] < 20_000
    assert all(event["eta"] <= 0.6 for event in told if event["event"] == "progress")


def test_it_stops_when_its_input_ends(tmp_path):
    folder = tmp_path / "orphan"
    with subprocess.Popen(
        command(folder, "--until-input-ends", "--override", "checkpoint_steps=0", steps=500_000),
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdin is not None
        assert "progress" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(10) == 128 + signal.SIGTERM
    assert (folder / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves(tmp_path, number):
    folder = tmp_path / "stopped"
    with subprocess.Popen(
        command(folder, "--override", "checkpoint_steps=0", steps=500_000),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "progress" in process.stdout.readline()
        process.send_signal(number)
        started = time.monotonic()
        output, complaint = process.communicate(timeout=60)
        assert time.monotonic() - started < 20
    assert process.returncode == 128 + number
    assert (folder / "checkpoint.safetensors").exists() and not (folder / "bundle.pt").exists()
    assert events(output)[-1]["event"] == "interrupted"
    assert "--resume" in complaint and "Traceback" not in complaint


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--robot", "hexapod"], "unknown robot 'hexapod'"),
        (["--steps", "-5"], "steps -5 must be at least 1"),
        (["--override", "learner.gama=0.9"], "learner.gama: unknown key"),
        (["--override", "field.form=magic"], "'magic' is not known"),
        (["--override", "perturb=cruel"], "unknown perturb 'cruel'"),
        (["--override", "seed"], "not of the form key=value"),
        (["--task", "dance"], "--task: dance: unknown task"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, more, words):
    folder = tmp_path / "out"
    assert train_main(["--out", str(folder), *more]) == 2
    complaint = capsys.readouterr().err.strip()
    assert words in complaint and complaint.startswith("qgf: error: ") and "\n" not in complaint
    assert not folder.exists()


def test_an_occupied_folder_is_refused(finished, capsys):
    folder, _ = finished
    assert train_main(["--out", str(folder)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_resuming_with_other_settings_is_refused(finished, capsys):
    folder, _ = finished
    assert train_main(["--out", str(folder), "--resume", "--steps", str(STEPS), *SETTINGS, "--seed", "9"]) == 2
    assert "was trained with seed 0, not 9" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused(finished, tmp_path, capsys):
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "checkpoint.safetensors").write_bytes((finished[0] / "checkpoint.safetensors").read_bytes()[:5000])
    assert train_main(["--out", str(folder), "--resume", "--steps", str(STEPS), *SETTINGS]) == 2
    assert "cannot be resumed from" in capsys.readouterr().err


def test_evaluating_no_bundle_is_one_line(tmp_path, capsys):
    path = tmp_path / "bundle.pt"
    path.write_bytes(b"PK nothing")
    assert evaluate_main([str(path)]) == 2
    assert "not a QGF bundle" in capsys.readouterr().err
