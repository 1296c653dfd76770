# SPDX-License-Identifier: Apache-2.0
"""Statistics against scipy and known coverage, and a grid with a run that crashes, one that is there, and one that is
killed and goes on."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from qgf_core.errors import QgfError
from qgf_trainer.comparison import FIGURES, METHODS, Cell, Outcome, markdown, method_arguments, run_grid, summarise
from qgf_trainer.comparison_cli import main
from qgf_trainer.config import TrainConfig
from qgf_trainer.ray_grid import _train
from qgf_trainer.statistics import bootstrap, interquartile_mean

SHORT = ["--steps", "600", "--override", "learner.hidden=[8, 8]", "--override", "warmup_steps=300"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 11, 40])
def test_interquartile_mean_is_scipys(size):
    values = np.random.default_rng(size).normal(size=(3, size))
    assert np.allclose(interquartile_mean(values), stats.trim_mean(values, 0.25, axis=1), rtol=1e-14)


def test_interquartile_mean_by_hand():
    assert interquartile_mean([100.0, 1, 2, 3, 4, 5, 6, -100]) == pytest.approx(3.5)  # 2 3 4 5 are left
    for bad in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="finite"):
            interquartile_mean(bad)


def test_bootstrap_stays_within_its_strata():
    """Each stratum is constant: whatever is drawn, the values are the same. Drawn across them they would differ."""
    found = bootstrap([[1.0] * 5, [3.0] * 5])
    assert found.low == found.high == found.estimate == 2.0


def test_bootstrap_covers_the_truth_and_agrees_with_scipy():
    rng = np.random.default_rng(0)
    hits = 0
    for index in range(200):
        found = bootstrap([rng.normal(5, 2, 20)], repetitions=400, seed=index)
        hits += found.low <= 5 <= found.high
    assert 0.87 <= hits / 200 <= 0.98
    sample = rng.normal(size=12)
    theirs = stats.bootstrap(
        (sample,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile", n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    ours = bootstrap([sample], repetitions=20_000)
    assert ours.low == pytest.approx(theirs.low, abs=0.02) and ours.high == pytest.approx(theirs.high, abs=0.02)


@pytest.mark.parametrize("strata", [[], [[]], [[1.0], []]])
def test_bootstrap_refuses_what_is_empty(strata):
    with pytest.raises(ValueError, match="strata"):
        bootstrap(strata)


def outcome(task, method, seed, value):
    figures = None if value is None else dict.fromkeys(FIGURES, value)
    return Outcome(Cell(task, method, seed), figures, "" if figures else "the reason")


def test_summary_by_hand_and_the_failed_are_told():
    outcomes = [outcome("a", "td3-plain", s, v) for s, v in enumerate([2.0, 4.0, 6.0])]
    outcomes += [outcome("a", "td3", s, v) for s, v in enumerate([1.0, 3.0, None])]
    outcomes += [outcome("b", "td3-plain", 0, -10.0), outcome("b", "td3", 0, -5.0), outcome("b", "td3-paper", 0, None)]
    table = summarise(outcomes)
    assert table["a", "td3-plain"]["sm"].estimate == 4.0 and table["a", "td3"]["sm"].estimate == 2.0
    assert table["b", "td3-paper"] == {}
    # Shares of the baseline's mean: 0.25, 0.75 on a and -0.5 on b; three values, so their mean.
    assert table["all", "td3"]["return"].estimate == pytest.approx((0.25 + 0.75 - 0.5) / 3)
    assert ("all", "td3-paper") not in table
    text = markdown(table, outcomes)
    assert "| td3 | 2 of 3 |" in text and "| td3-paper | 0 of 1 | - |" in text
    assert "- a, td3, seed 2: the reason" in text and "2 without a result" in text


def test_every_method_is_a_training(tmp_path):
    """The arguments of each method are understood by the trainer and differ from the others'."""
    from qgf_trainer.cli import _train_parser
    from qgf_trainer.config import load_train_config, with_form

    configs: list[TrainConfig] = []
    for method in METHODS:
        options = _train_parser().parse_args(Cell("iiwa:reach", method, 7).arguments(tmp_path, []))
        assert (options.robot, options.task, options.seed) == ("iiwa", "reach", 7)
        overrides = [f"field.smoothness={options.smoothness}"] if options.smoothness else []
        overrides += [f"rival.kind={options.rival}"] if options.rival else []
        configs.append(with_form(load_train_config("reach", overrides, algorithm=options.algo), options.form))
    assert len({(c.algorithm, c.rival.kind, c.field) for c in configs}) == len(METHODS)


def test_a_number_may_follow_a_method():
    assert method_arguments("td3@0.3") == ("--algo", "td3", "--smoothness", "0.3")
    assert method_arguments("td3-caps@5")[-3:] == ("rival.caps.spatial=5.0", "--override", "rival.caps.temporal=1.0")
    assert method_arguments("td3-plain+a=64+b.c=3")[2:] == ("--override", "a=64", "--override", "b.c=3")
    for wrong in ("td3+every", "td3+perturb=a/b", "td3@", "td3@much", "td3@-1", "td3-plain@1", "ppo", "@1"):
        with pytest.raises(QgfError, match="--methods"):
            method_arguments(wrong)


@pytest.fixture
def paths(monkeypatch):
    found = [str(Path(__file__).parents[2] / name) for name in ("qgf_core", "qgf_sim", "qgf_trainer")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*found, os.environ.get("PYTHONPATH", "")]))


def test_a_grid_with_a_crash_that_is_mended(tmp_path, paths, capsys):
    arguments = ["--methods", "td3-plain", "td3", "--seeds", "1", "--out", str(tmp_path), *SHORT]
    blocked = tmp_path / "reach-td3-0"
    blocked.write_text("a file where the run's folder should be")
    assert main(arguments) == 1
    text = capsys.readouterr().out
    assert "| td3 | 0 of 1 |" in text and "- reach, td3, seed 0: qgf: error:" in text and "reach-td3-0" in text
    first = (tmp_path / "reach-td3-plain-0" / "evaluation.json").stat().st_mtime_ns
    blocked.unlink()
    assert main(arguments) == 0
    assert (tmp_path / "reach-td3-plain-0" / "evaluation.json").stat().st_mtime_ns == first, "it was trained again"
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open(encoding="utf-8")))
    assert [(row["method"], row["failure"]) for row in rows] == [("td3-plain", ""), ("td3", "")]
    whole = json.loads((tmp_path / "comparison.json").read_text())
    figures = json.loads((tmp_path / "reach-td3-0" / "evaluation.json").read_text())
    assert whole["failed"] == 0 and whole["cells"][1]["figures"] == figures
    assert whole["summary"]["reach/td3"]["sm"]["estimate"] == pytest.approx(figures["sm"])
    assert (tmp_path / "comparison-reach.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--override", "batch_size=64"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_a_gymnasium_task_has_its_own_columns(tmp_path, paths, capsys):
    small = ["--steps", "250", "--override", "learner.hidden=[8, 8]", "--override", "warmup_steps=200"]
    chosen = ["--tasks", "Pendulum-v1", "--methods", "td3@0.3", "--seeds", "1"]
    assert main([*chosen, "--out", str(tmp_path), *small]) == 0
    text = capsys.readouterr().out
    assert "| method | runs | return | sm | mean_abs_delta | training_time_s |" in text
    assert "| td3@0.3 | 1 of 1 |" in text
    config = json.loads((tmp_path / "Pendulum-v1-td3@0.3-0" / "config.json").read_text())
    assert config["field"]["smoothness"] == 0.3
    assert (tmp_path / "comparison-Pendulum-v1.png").read_bytes().startswith(b"\x89PNG")


def test_an_interruption_stops_the_runs(tmp_path, paths):
    class Enough(Exception):
        pass

    def tell(cell, share):
        raise Enough

    with pytest.raises(Enough):
        run_grid([Cell("reach", "td3", 0), Cell("reach", "td3", 1)], tmp_path, SHORT, 1, tell)
    assert not (tmp_path / "reach-td3-1" / "evaluation.json").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--seeds", "0"],
        ["--tasks", "nowhere"],
        ["--tasks", "nobody:reach"],
        ["--tasks", "panda:Pendulum-v1"],
        ["--methods", "ppo"],
    ],
)
def test_mistakes_are_told_before_anything_runs(tmp_path, wrong, capsys):
    assert main(["--out", str(tmp_path / "grid"), *wrong]) == 2
    assert capsys.readouterr().err.startswith("qgf: error: ") and not (tmp_path / "grid").exists()


def test_a_damaged_result_is_a_failure_not_a_row(tmp_path):
    cell = Cell("reach", "td3", 0)
    (tmp_path / cell.name).mkdir()
    (tmp_path / cell.name / "evaluation.json").write_text("{}")
    (found,) = run_grid([cell], tmp_path, [], 1)
    assert found.figures is None and "delete it" in found.failure


def test_a_ray_cluster_gives_the_results_of_this_machine(tmp_path, paths, capsys):
    """A cluster of this machine: the figures are those of a run without it, and a crash is told."""
    near, far = tmp_path / "near", tmp_path / "far"
    arguments = ["--seeds", "1", "--jobs", "2", *SHORT]
    assert main([*arguments, "--methods", "td3-plain", "--out", str(near)]) == 0
    far.mkdir()
    (far / "reach-td3-0").write_text("a file where the run's folder should be")
    capsys.readouterr()
    assert main([*arguments, "--methods", "td3-plain", "td3", "--ray", "--out", str(far)]) == 1
    text = capsys.readouterr().out
    assert "| td3-plain | 1 of 1 |" in text and "- reach, td3, seed 0: qgf: error:" in text
    one, other = (json.loads((root / "reach-td3-plain-0" / "evaluation.json").read_text()) for root in (near, far))
    for timed in [key for key in one if key.endswith("time_s")]:
        del one[timed], other[timed]
    assert one == other and one["return"] != 0.0


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path):
    found = _train(Cell("reach", "td3", 0), str(tmp_path / "elsewhere"), [], None)
    assert found.figures is None and "does not see" in found.failure and "elsewhere" in found.failure


def test_no_cluster_at_the_address_is_one_line(tmp_path, paths, capsys):
    for address, reason in (("nobody", "no cluster ("), ("127.0.0.1:1", "nobody answers (")):
        assert main(["--ray", address, "--seeds", "1", "--out", str(tmp_path / "grid"), *SHORT]) == 2
        error = capsys.readouterr().err
        assert f"qgf: error: --ray {address}: {reason}" in error and "ray start --head" in error
