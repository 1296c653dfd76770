# SPDX-License-Identifier: Apache-2.0
"""Bags of known signals, whole and damaged, through the command line and the analysis."""

from __future__ import annotations

import json
import math
import re
import shutil
import sqlite3
import sys

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from qgf_core import smoothness
from qgf_core.errors import QgfError
from qgf_monitor import analyse_cli, explain_cli
from qgf_monitor.analysis import Selection, analyse
from qgf_monitor.config import load_config
from qgf_monitor.health import Level

CONFIG = load_config()
PLUGINS = [StoragePlugin.SQLITE3, StoragePlugin.MCAP]


def run(capsys, monkeypatch, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["analyse", *map(str, arguments)])
    code = analyse_cli.main()
    output, errors = capsys.readouterr()
    return code, output, errors


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_figures_over_time_are_the_batch_formulas(tmp_path, plugin, bags):
    found = analyse(bags.write(tmp_path / "bag", amplitude=0.1, plugin=plugin), CONFIG)
    assert (found.states, found.command, found.messages) == ("/arm/joint_states", "/arm/commands", 1200)
    assert found.duration == pytest.approx(6.0, abs=0.02)
    assert set(found.series) == {"command", "joint_position", "joint_velocity"}
    series = found.series["joint_position"]
    assert len(series.time) == 12 and series.joint_names == ("a", "b")
    window = np.array([[bags.signal(k, 0.0), bags.signal(k, 0.1)] for k in range(400, 600)])
    last = series.reports[-1]
    batch = smoothness.measure(window, bags.RATE, 20.0, CONFIG.sources["joint_position"].deadband)
    for name, value in vars(batch).items():
        # the stamps are kept as float seconds: their rate has a relative error of some 1e-10
        assert getattr(last, name) == pytest.approx(value, rel=1e-7, abs=1e-12), name
    assert last.peak_frequency.reshape(2, 3)[1, :2] == pytest.approx([0.5, 31.0], abs=0.5)
    assert last.band_rms[1] == pytest.approx(0.1 / math.sqrt(2), rel=0.02)
    assert found.series["command"].reports[-1].response_lag == pytest.approx(0.0, abs=1e-2)
    assert found.level == Level.ERROR and found.series["joint_position"].levels[-1] == Level.ERROR


def test_the_command_line_gates(tmp_path, capsys, monkeypatch, bags):
    smooth, rough = bags.write(tmp_path / "smooth"), bags.write(tmp_path / "rough", amplitude=0.02)
    code, output, _ = run(capsys, monkeypatch, smooth)
    assert code == 0 and "joint_position: OK" in output
    code, output, _ = run(capsys, monkeypatch, rough, "--json")
    figures = json.loads(output)
    assert code == 1 and figures["level"] == "ERROR"
    assert figures["joint_position.band_rms.median"] == pytest.approx(0.02 / math.sqrt(2), rel=0.05)
    assert run(capsys, monkeypatch, rough, "--fail-on", "never")[0] == 0
    bound = ["--fail-on", "never", "--max"]
    assert run(capsys, monkeypatch, rough, *bound, "command.band_rms.p95=0.02")[0] == 0
    code, output, _ = run(capsys, monkeypatch, rough, *bound, "command.band_rms.p95=0.01")
    assert code == 1 and "beyond: command.band_rms.p95 is 0.014" in output
    assert run(capsys, monkeypatch, rough, *bound, "command.misspelt=9")[0] == 1
    code, output, _ = run(capsys, monkeypatch, smooth, "--compare", rough, "--max-ratio", "2", "--fail-on", "never")
    assert code == 1 and "command.band_rms.median grew" in output
    assert run(capsys, monkeypatch, rough, "--compare", smooth, "--max-ratio", "2", "--fail-on", "never")[0] == 0


def test_the_page_is_self_contained(tmp_path, capsys, monkeypatch, bags):
    smooth, rough = bags.write(tmp_path / "<smooth>"), bags.write(tmp_path / "rough", amplitude=0.02)
    page = tmp_path / "page.html"
    assert run(capsys, monkeypatch, rough, "--compare", smooth, "--html", page)[0] == 1
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3 and "&lt;smooth&gt;" in text and "<smooth>" not in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_errors_are_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, bags):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no bag")
    whole = bags.write(tmp_path / "whole")
    for arguments, said in (
            (["absent"], "no such bag"), (["empty"], "no bag of rosbag2"), (["file.txt"], "no bag of rosbag2"),
            (["whole", "--command", "/nothing"], "no topic /nothing of a known type; it holds: /arm/commands (std"),
            (["whole", "--max", "x=y"], "give FIGURE=NUMBER"), (["whole", "--max-ratio", "2"], "add --compare BAG"),
            (["whole", "--step", "0"], "give seconds above 0"), (["whole", "--bundle", "absent.pt"], "absent.pt"),
            (["whole", "--html", "absent/x.html"], "cannot be written")):
        code, output, errors = run(capsys, monkeypatch, tmp_path / arguments[0], *arguments[1:])
        assert (code, output) == (2, ""), arguments
        assert said in errors and errors.startswith("qgf: error: ") and errors.count("\n") == 1
    assert whole.exists()


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_an_empty_bag_says_so(tmp_path, plugin, bags):
    with pytest.raises(QgfError, match=r"0 messages on .*too few to judge"):
        analyse(bags.write(tmp_path / "bag", messages=[], plugin=plugin), CONFIG)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_truncated_bag_is_read_as_far_as_it_goes(tmp_path, plugin, share, bags):
    path = bags.write(tmp_path / "bag", seconds=20.0, amplitude=0.1, plugin=plugin)
    (file,) = [*path.glob("*.db3"), *path.glob("*.mcap")]
    file.write_bytes(file.read_bytes()[:int(share * file.stat().st_size)])
    try:
        found = analyse(path, CONFIG)
    except QgfError as error:
        assert share < 0.5 and str(path) in str(error)  # too little is left
        return
    assert found.notes and found.series["joint_position"].reports[-1].band_rms[1] == pytest.approx(0.0707, rel=0.05)
    assert found.messages <= (4000 if share > 0.9 else 3000)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_bag_without_metadata_as_a_killed_recorder_leaves_it(tmp_path, plugin, bags):
    path = bags.write(tmp_path / "bag", plugin=plugin, amplitude=0.1)
    (path / "metadata.yaml").unlink()
    found = analyse(path, CONFIG)
    assert found.messages == 1200
    assert found.series["command"].reports[-1].band_rms[1] == pytest.approx(0.0707, rel=0.05)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_flipped_bytes_end_in_figures_or_in_one_line(tmp_path, plugin, seed, bags):
    path = bags.write(tmp_path / "bag", plugin=plugin)
    (file,) = [*path.glob("*.db3"), *path.glob("*.mcap")]
    data, rng = bytearray(file.read_bytes()), np.random.default_rng(seed)
    for place in rng.integers(0, len(data), 200):
        data[place] ^= int(rng.integers(1, 256))
    file.write_bytes(bytes(data))
    try:
        analyse(path, CONFIG)
    except QgfError as error:
        assert str(path) in str(error)


def test_unordered_messages_and_a_clock_that_jumps(tmp_path, bags):
    messages = bags.recorded(6.0, 0.1)
    rng = np.random.default_rng(0)
    for k in rng.integers(0, 1199, 40):
        messages[k], messages[k + 1] = messages[k + 1], messages[k]
    later, earlier = 10**13, 10**12
    moved = [(topic, payload, received) for topic, payload, received in messages]
    for k in range(300, 600):  # the received time leaps ahead by hours, then back
        moved[k] = (moved[k][0], moved[k][1], moved[k][2] + later)
    for k in range(600, 1200):  # and the stamps of the states too, for good
        topic, _, received = moved[k]
        values = [bags.signal(k // 2, 0.0), bags.signal(k // 2, 0.1)]
        stamp = bags.START + round(k // 2 * 1e9 / bags.RATE) - earlier
        payload = bags.joint_state(("a", "b"), values, values, stamp) if "states" in topic else bags.array(values)
        moved[k] = (topic, payload, received)
    found = analyse(bags.write(tmp_path / "bag", messages=moved), CONFIG)
    assert found.duration < 30.0
    assert any("clock set back" in note for note in found.notes)
    assert found.series["joint_position"].reports[-1].band_rms[1] == pytest.approx(0.0707, rel=0.05)


def test_other_peoples_bags(tmp_path, bags):
    found = analyse(bags.write(tmp_path / "states", commands=False, amplitude=0.1), CONFIG)
    assert found.command == "" and set(found.series) == {"joint_position", "joint_velocity"}
    found = analyse(tmp_path / "states", CONFIG, Selection(joints=("b",)))
    assert found.series["joint_position"].joint_names == ("b",)
    both = bags.write(tmp_path / "both", amplitude=0.1)
    found = analyse(both, CONFIG, Selection(quantity="position"))
    assert found.series["command"].reports[-1].tracking_error == pytest.approx([0.0, 0.0], abs=0.2)


def test_rubbish_in_the_messages_is_counted(tmp_path, bags):
    messages = bags.recorded(4.0, 0.0)
    messages[101] = (messages[101][0], b"\0\1", messages[101][2])
    messages[103] = (messages[103][0], bags.joint_state(("a", "a"), [0, 0], [0, 0], bags.START), messages[103][2])
    unusable = bags.joint_state(("a", "b"), [math.nan, 0], [0, 0], bags.START)
    messages[105] = (messages[105][0], unusable, messages[105][2])
    found = analyse(bags.write(tmp_path / "bag", messages=messages), CONFIG)
    assert "2 malformed, 1 non_finite" in found.notes[-1]


def test_a_row_that_is_no_message_does_not_stop_the_reading(tmp_path, bags):
    path = bags.write(tmp_path / "bag")
    (file,) = path.glob("*.db3")
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    (path / "metadata.yaml").unlink()
    with sqlite3.connect(file) as database:
        database.execute("UPDATE messages SET data = 'text' WHERE id = 7")
        database.execute("UPDATE messages SET topic_id = 99 WHERE id = 9")
    assert analyse(path, CONFIG).messages == 1198


def test_explain_a_foreign_bag_whose_arm_moves_more_than_it_is_asked(tmp_path, capsys, monkeypatch, bags):
    messages = []
    smooth, rough = bags.recorded(12.0, 0.0), bags.recorded(12.0, 0.1)
    for (topic, payload, received), (_, other, _) in zip(smooth, rough, strict=True):
        messages.append((topic, other if "states" in topic else payload, received))
    path = bags.write(tmp_path / "bag", messages=messages)
    monkeypatch.setattr(sys, "argv", ["explain", str(path), "--json"])
    assert explain_cli.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["likeliest"] == "actuator"
    assert re.search(r"at 3[01]\.\d Hz the arm moves", told["causes"][0]["evidence"])
    assert [row["score"] for row in told["causes"][1:]] == [None] * 3
    monkeypatch.setattr(sys, "argv", ["explain", str(path)])
    assert explain_cli.main() == 0 and "most likely: actuator" in capsys.readouterr().out
    empty = bags.write(tmp_path / "empty", messages=[])
    monkeypatch.setattr(sys, "argv", ["explain", str(empty)])
    assert explain_cli.main() == 2
    assert capsys.readouterr().err.startswith(f"qgf: error: {empty}: nothing to explain")
