# SPDX-License-Identifier: Apache-2.0
"""Goals of the training action without ROS: command line, standing, reasons; and when one policy beats another."""

import dataclasses
import itertools
import math
import types

import pytest

from qgf_core.errors import QgfError
from qgf_trainer.goal import Run, Standing, arguments_of, folder_of, reason_of
from qgf_trainer.hand_over import judge


def goal(**changes):
    fields = {
        "robot": "panda", "task": "reach", "algorithm": "td3", "steps": 1200, "minutes": 0.0, "seed": 3,
        "output_directory": "run", "overrides": "", "resume": False,
    }  # fmt: skip
    return types.SimpleNamespace(**{**fields, **changes})


def test_the_command_line_of_a_goal(tmp_path):
    given = goal(overrides="learner: {hidden: [16, 16]}\nwarmup_steps: 600\n", resume=True, minutes=0.5)
    words = arguments_of(given, tmp_path)
    pairs = dict(itertools.pairwise(words))
    assert pairs["--algo"] == "td3" and pairs["--steps"] == "1200" and pairs["--seed"] == "3"
    assert pairs["--out"] == str(tmp_path) and pairs["--minutes"] == "0.5" and "--resume" in words
    assert {words[i + 1] for i, word in enumerate(words) if word == "--override"} == {
        "learner.hidden=[16, 16]",
        "warmup_steps=600",
    }


def test_what_a_goal_leaves_open_is_left_to_the_settings(tmp_path):
    words = arguments_of(goal(robot="", steps=0, minutes=0.0), tmp_path)
    assert not {"--robot", "--steps", "--minutes", "--resume", "--override"} & set(words)


@pytest.mark.parametrize("minutes", [-1.0, math.nan, math.inf])
def test_minutes_that_are_no_time_are_refused(tmp_path, minutes):
    with pytest.raises(QgfError, match="must be finite and not negative"):
        arguments_of(goal(minutes=minutes), tmp_path)


def test_folders_stay_below_the_root(tmp_path):
    assert folder_of(goal(output_directory="a/b"), str(tmp_path)) == tmp_path / "a" / "b"
    assert folder_of(goal(output_directory=str(tmp_path / "c")), "") == tmp_path / "c"
    for outside in ("../x", "/x", str(tmp_path.parent)):
        with pytest.raises(QgfError, match="lies outside"):
            folder_of(goal(output_directory=outside), str(tmp_path))
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(QgfError, match="lies outside"):
        folder_of(goal(output_directory="link/x"), str(tmp_path))
    with pytest.raises(QgfError, match="name a folder"):
        folder_of(goal(output_directory=""), "")


def progress(step, value):
    return {"event": "progress", "step": step, "steps_total": 100, "episode_return": value, "phase": "training"}


def test_the_best_so_far_is_the_highest_return_and_its_step():
    standing = Standing()
    for step, value in ((10, math.nan), (20, -5.0), (30, -2.0), (40, -3.0), (50, -2.0)):
        standing.take(progress(step, value))
    assert (standing.best_return, standing.best_step) == (-2.0, 30)
    assert (standing.step, standing.episode_return, standing.steps_total) == (50, -2.0, 100)
    standing.take({"event": "evaluating", "episodes": 20})
    assert standing.phase == "evaluating" and math.isnan(standing.eta)


def test_a_resumed_run_remembers_its_best(tmp_path):
    (tmp_path / "progress.csv").write_text("step,time,episode_return\n600,1.0,4.5\n1200,2.0,3.0\n18")
    standing = Standing()
    standing.remember(tmp_path)
    standing.take(progress(1300, 4.0))
    assert (standing.best_return, standing.best_step) == (4.5, 600)
    fresh = Standing()
    fresh.remember(tmp_path / "none")
    assert math.isnan(fresh.best_return)


def test_it_tells_who_is_trained():
    run = Run("td3 for panda is trained in runs/x")
    run.standing.take({**progress(40, 1.0), "eta": 12.3})
    assert str(run) == "td3 for panda is trained in runs/x for 0 s (training, step 40 of 100, 12 s to go)"


@pytest.mark.parametrize(
    ("code", "step", "reason"), [(-9, 0, "KILLED"), (2, 0, "REFUSED"), (2, 600, "FAILED"), (1, 0, "FAILED")]
)
def test_why_it_ended(code, step, reason):
    assert reason_of(code, step) == reason


def manifest(robot="panda", task="reach", rate=50.0, **figures):
    known = {"episodes": 20, "success": 1.0, "return": 140.0, "sm": 0.4}
    return types.SimpleNamespace(
        robot=types.SimpleNamespace(name=robot), task=task, control_rate=rate, evaluation={**known, **figures}
    )


@pytest.mark.parametrize(
    ("new", "better", "words"),
    [
        ({"success": 0.95, "sm": 0.1}, False, "success 0.95 after 1.00"),  # one goal of 20 missed: 0.05 > 0.5 / 20
        ({"success": 0.98, "sm": 0.3}, True, "Sm 0.3 after 0.4"),  # 0.02 < 0.5 / 20 counts as equal
        ({"sm": 0.39}, True, "Sm 0.39 after 0.4"),
        ({"sm": 0.4}, False, "Sm 0.4 after 0.4"),  # the same bundle is not better than itself
        ({"sm": 0.1, "return": 132.9}, False, "return 132.9 after 140"),  # 5 % of 140 is 7
        ({"sm": 0.1, "return": 133.1}, True, "Sm 0.1 after 0.4"),
        ({"robot": "iiwa", "sm": 0.1}, False, "its robot is iiwa, that of the running policy panda"),
        ({"rate": 100.0, "sm": 0.1}, False, "its control rate is 100.0"),
    ],
)
def test_which_policy_is_better(new, better, words):
    verdict = judge(manifest(**new), manifest())
    assert (verdict.better, words in verdict.why) == (better, True), verdict


def test_negative_returns_and_missing_figures():
    assert judge(manifest(**{"sm": 0.1, "return": -104.0}), manifest(**{"return": -100.0})).better
    assert not judge(manifest(**{"sm": 0.1, "return": -106.0}), manifest(**{"return": -100.0})).better
    bare = manifest()
    del bare.evaluation["sm"]
    verdict = judge(manifest(), bare)
    assert not verdict.better and "does not tell its sm" in verdict.why


def test_standing_has_the_fields_of_the_message():
    qgf_msgs = pytest.importorskip("qgf_msgs.msg", reason="needs the built messages")
    message = set(qgf_msgs.TrainProgress.get_fields_and_field_types()) - {"header"}
    assert message == {field.name for field in dataclasses.fields(Standing)}
