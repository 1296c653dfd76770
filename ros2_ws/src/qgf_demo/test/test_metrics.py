# SPDX-License-Identifier: Apache-2.0
"""metrics.json and the table."""

import json

from qgf_demo.metrics import BOUNDS, assemble, ratio, text_table, write_metrics

FIGURES = {
    "success": 1.0,
    "settled": 1.0,
    "final_distance_mm": 8.0,
    "return": 140.0,
    "sm": 0.6,
    "mean_abs_delta": 0.3,
    "hold_rms": 0.08,
    "high_frequency_ratio": 0.7,
    "sign_flip_index": 0.5,
    "command_total_variation_rate": 9.0,
}
TIMING = {
    "late10": 0.004,
    "period_jitter_rms_ms": 0.3,
    "period_jitter_max_ms": 2.0,
    "skipped": 0.0,
    "held_periods": 0.0,
    "beyond_limits": 0.0,
}


def assembled(**changes):
    calm = {**FIGURES, "sm": 0.15, "mean_abs_delta": 0.03, "hold_rms": 0.008, "return": 139.3, **changes}
    return assemble(
        FIGURES,
        calm,
        FIGURES | TIMING,
        calm | TIMING | {"late10": 0.006},
        {"seed": 3, "robot": "panda", "steps": 60000},
    )


def test_flat_names_and_ratios(tmp_path):
    write_metrics(tmp_path / "metrics.json", assembled())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for prefix in ("", "live."):
        for role in ("plain", "stabilised"):
            for name in ("success", "final_distance_mm", "return", *FIGURES):
                assert f"{prefix}{role}.{name}" in metrics
        assert metrics[f"{prefix}ratio.sm"] == 0.25
        assert abs(metrics[f"{prefix}ratio.mean_abs_delta"] - 0.1) < 1e-12
        assert abs(metrics[f"{prefix}ratio.hold_rms"] - 0.1) < 1e-12
        assert abs(metrics[f"{prefix}ratio.return"] - 0.995) < 1e-12
    assert metrics["live.plain.late10"] == 0.004
    assert metrics["live.late10"] == 0.006  # the worse of both
    assert (metrics["seed"], metrics["robot"], metrics["steps"]) == (3, "panda", 60000)
    assert all(not isinstance(value, (dict, list)) for value in metrics.values())


def test_a_ratio_without_meaning_is_none_and_keeps_no_bound():
    assert ratio(0.1, 0.0) is None
    assert ratio(-50.0, -40.0) is None
    never_succeeded = assembled(hold_rms=-1.0)
    assert never_succeeded["ratio.hold_rms"] is None
    assert not BOUNDS["ratio.hold_rms"].kept(never_succeeded)


def test_bounds_at_their_edges():
    assert BOUNDS["ratio.sm"].kept({"ratio.sm": 0.35}) and not BOUNDS["ratio.sm"].kept({"ratio.sm": 0.3501})
    success = BOUNDS["live.stabilised.success"]
    assert success.kept({"live.stabilised.success": 18 / 20}) and not success.kept({"live.stabilised.success": 17 / 20})


def test_table_tells_figures_ratios_and_bounds():
    table = text_table(assembled())
    (line,) = [line for line in table.splitlines() if line.startswith("mean |Δa|") and "0.25" in line]
    assert line.split()[3:6] == ["0.300", "0.030", "0.100"]
    assert line.endswith("plain ≥ 0.2 kept, ratio ≤ 0.25 kept")
    assert "NOT KEPT" not in table
    broken = text_table(assembled(sm=0.5))
    assert "ratio ≤ 0.35 NOT KEPT" in broken and "ratio ≤ 0.42 NOT KEPT" in broken
    assert len({len(line) for line in table.splitlines() if set(line) == {"-"}}) == 1
