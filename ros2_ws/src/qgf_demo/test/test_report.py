# SPDX-License-Identifier: Apache-2.0
"""The report of two made-up runs: complete, self-contained, and drawn in the colours of the two policies."""

import base64
import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from qgf_demo.figures import DARK, LIGHT, Live, mean_spectrum
from qgf_demo.judge import judge_live, live_episodes
from qgf_demo.metrics import assemble
from qgf_demo.page import CAPTIONS
from qgf_demo.report import png, read_curves, shown_episode, write_report
from qgf_sim.reach import load_reach
from qgf_trainer.evaluation import EvaluationConfig

STEPS = 60


@pytest.fixture(scope="module")
def task():
    return dataclasses.replace(load_reach(), episode_steps=STEPS)


def approach(chatter):
    """Each joint falls towards 0 within half a second, with chatter at 20 Hz on top [rad]."""

    def path(seconds):
        reach = 0.3 * np.exp(-np.clip(seconds, 0.0, None) / 0.1) + chatter * np.sin(2 * np.pi * 20.0 * seconds)
        return np.column_stack([reach, 0.5 * reach, 0.2 * reach])

    return path


@pytest.fixture(scope="module")
def live(make_recording, robot, kinematics, task):
    runs = {}
    for role, chatter in (("plain", 1e-3), ("stabilised", 1e-5)):
        actions = 0.3 + 300 * chatter * np.random.default_rng(1).standard_normal((2, STEPS, 3))
        recording = make_recording(robot, [(0.0, 0.0, 0.0), (0.001, 0.0, 0.0)], STEPS, actions, approach(chatter))
        stamps = recording.goal_stamp[0] + 100_000_000 * np.arange(20)
        recording.reports.update(
            source=np.array(["raw_action", "command"] * 10),
            stamp=stamps,
            mean_absolute_delta=np.full((20, 3), chatter),
            band_rms=np.full((20, 3), chatter),
        )
        runs[role] = Live(recording, live_episodes(recording, robot, kinematics, task))
    return runs


@pytest.fixture(scope="module")
def written(live, robot, task, tmp_path_factory):
    """A report in a folder whose name HTML has to escape."""
    out = tmp_path_factory.mktemp("report") / "<demo> & more"
    evaluation = EvaluationConfig(episodes=2)
    trained = {}
    for role in live:
        (out / role).mkdir(parents=True)
        (out / role / "progress.csv").write_text(
            "step,time,episode_return,success,paper_smoothness,td_loss\n"
            f"1000,1,-70,0.0,0.5,\n2000,2,{len(role)},0.{len(role)},0.4,0.1\n"
        )
        trained[role] = SimpleNamespace(folder=out / role, sha256=role[0] * 64)
    figures = {role: judge_live(run.recording, run.episodes, robot, task, evaluation) for role, run in live.items()}
    facts = {
        "robot": "<b>arm</b>",
        "task": "reach",
        "steps": 60000,
        "seed": 4,
        "form": "scale_free",
        "live.episodes": 2,
    }
    metrics = assemble(figures["plain"], figures["stabilised"], figures["plain"], figures["stabilised"], facts)
    write_report(out, metrics, trained, live, task)
    return out, metrics


def pixels(picture):
    return (255 * matplotlib.image.imread(io.BytesIO(picture), format="png")[..., :3]).round().astype(int)


def share_of(colour, picture):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float(np.mean(np.all(np.abs(pixels(picture) - wanted) <= 2, axis=-1)))


def test_page_is_complete_and_self_contained(written):
    out, metrics = written
    page = (out / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|srcset|href)="([^"]{0,40})', page)
    assert len(links) == 2 * len(CAPTIONS) and all(link.startswith("data:image/png;base64,") for link in links)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert "<b>arm</b>" not in page and "&lt;b&gt;arm&lt;/b&gt;" in page
    assert "prefers-color-scheme: dark" in page
    for text in ("60,000 steps, seed 4", "p" * 64, "s" * 64, f"{metrics['live.ratio.sm']:.3f}", "policy_node"):
        assert text in page
    # Well-formed but for HTML's void elements.
    body = re.sub(r"<(meta|source|img|br)([^>]*)>", r"<\1\2/>", page.partition("\n")[2])
    ElementTree.fromstring(body.replace("&lt;", "").replace("&gt;", ""))


def test_pictures_lie_beside_and_inside(written):
    out, _ = written
    page = (out / "report.html").read_text(encoding="utf-8")
    embedded = {base64.b64decode(text) for text in re.findall(r"base64,([A-Za-z0-9+/=]+)", page)}
    assert len(embedded) == 2 * len(CAPTIONS)
    for name in CAPTIONS:
        picture = (out / f"{name}.png").read_bytes()
        assert picture in embedded
        assert pixels(picture).shape[1] > 1000


@pytest.mark.parametrize("name", list(CAPTIONS))
def test_both_policies_are_drawn(written, name):
    picture = (written[0] / f"{name}.png").read_bytes()
    for role in ("plain", "stabilised"):
        # Lines of the distance figure and bars of the histogram are translucent.
        if name not in ("distance", "timing"):
            assert share_of(LIGHT.colour(role), picture) > 2e-4, role
    assert share_of(LIGHT.paper, picture) > 0.5


def test_dark_pictures_are_dark(live):
    from qgf_demo.figures import spectra

    picture = png(DARK, lambda theme: spectra(theme, live))
    assert share_of(DARK.paper, picture) > 0.5 and share_of(DARK.plain, picture) > 2e-4


def test_without_training_curves_there_is_no_such_figure(written, live, task, tmp_path):
    trained = {role: SimpleNamespace(folder=tmp_path / "nowhere", sha256="") for role in live}
    write_report(tmp_path, written[1], trained, live, task)
    assert not (tmp_path / "training.png").exists() and (tmp_path / "traces.png").exists()
    assert CAPTIONS["training"][1][:40] not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_spectrum_shows_the_chatter_where_it_is(live):
    frequency, power = mean_spectrum([e.episode.joint_velocity for e in live["plain"].episodes], 50.0)
    upper = frequency > 10.0
    assert frequency[upper][np.argmax(power[upper])] == pytest.approx(20.0, abs=0.9)
    _, calm = mean_spectrum([e.episode.joint_velocity for e in live["stabilised"].episodes], 50.0)
    assert 1e-5 < calm[upper].max() / power[upper].max() < 1e-2


def test_shown_goal_is_a_typical_one():
    def run(*final):
        return SimpleNamespace(episodes=[SimpleNamespace(episode=SimpleNamespace(distance=[1.0, d])) for d in final])

    assert shown_episode({"plain": run(0.5, 0.011, 0.010), "stabilised": run(0.004, 0.4, 0.005)}) == 2


def test_curves_of_a_cut_file(tmp_path):
    path = tmp_path / "progress.csv"
    path.write_text("step,episode_return,success,paper_smoothness\n100,1.5,0.0,\n")
    curves = read_curves(path)
    assert curves["episode_return"].tolist() == [1.5] and np.isnan(curves["paper_smoothness"]).all()
    assert len(read_curves(tmp_path / "none.csv")["step"]) == 0
