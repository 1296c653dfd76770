# SPDX-License-Identifier: Apache-2.0
"""The demo's command line: help, and mistakes told in one line before anything is written."""

import pytest

from qgf_demo.cli import Options, main, parse
from qgf_demo.demo import INCOMPLETE, clear, make_folder
from qgf_demo.live import NODES, find_nodes
from qgf_demo.policies import ROLES


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """A folder to work in, and a workspace in which all nodes are found."""
    for package, name in NODES:
        path = tmp_path / "install" / "lib" / package / name
        path.parent.mkdir(parents=True)
        path.write_text("")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'elsewhere'}:{tmp_path / 'install'}")
    monkeypatch.delenv("DISPLAY", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def fails(arguments, capsys):
    """The one line that these arguments give, without "qgf: error: "."""
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("qgf: error: ")
    return line.partition("qgf: error: ")[2]


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--steps", "-5"], "argument --steps: '-5' is not a whole number of at least 1"),
        (["--steps", "1e4"], "argument --steps: '1e4' is not a whole number of at least 1"),
        (["--steps", "0"], "argument --steps: '0'"),
        (["--episodes", "0"], "argument --episodes: '0' is not a whole number of at least 1"),
        (["--seed", "-1"], "argument --seed: '-1' is not a whole number of at least 0"),
        (["--form", "other"], "argument --form: invalid choice: 'other'"),
        (["--fast"], "unrecognized arguments: --fast"),
        (["--gui", "--headless"], "not allowed with argument"),
        (["--robot", "r2d2"], "config/robots: unknown robot 'r2d2'; choose one of: iiwa, panda, ur5e"),
        (["--robot", "none.yaml"], "none.yaml: no such file"),
        (["--gui"], "--gui: there is no display"),
        (["--bundles", "nowhere"], "--bundles nowhere: there is no plain/bundle.pt;"),
        (["--bundles", "b", "--steps", "9"], "--steps: 9 has no meaning with --bundles"),
        (["--bundles", "b", "--out", "./b"], "--out: b is the folder of --bundles"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, told, workspace, capsys):
    assert told in fails(arguments, capsys)
    assert list(workspace.iterdir()) == []


def test_an_existing_folder_is_refused_and_left_alone(workspace, capsys):
    (workspace / "out").mkdir()
    (workspace / "out" / "report.html").write_text("mine")
    line = fails(["--out", "out"], capsys)
    assert line == "--out out: exists already; choose another folder, or --overwrite"
    (workspace / "file").write_text("")
    assert fails(["--out", "file", "--overwrite"], capsys) == "--out file: exists already; choose another folder"
    assert (workspace / "out" / "report.html").read_text() == "mine"
    assert sorted(path.name for path in workspace.iterdir()) == ["file", "out"]


def test_a_folder_that_cannot_be_made(workspace, capsys):
    (workspace / "file").write_text("")
    assert "cannot be made" in fails(["--out", "file/out"], capsys)


def test_a_workspace_that_is_not_entered(workspace, capsys, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    assert "lib/qgf_sim/sim_node: not found under AMENT_PREFIX_PATH; run ./qgf demo" in fails([], capsys)
    assert list(workspace.iterdir()) == []


def test_a_damaged_bundle_is_found_before_anything_is_written(workspace, capsys):
    for role in ROLES:
        (workspace / "old" / role.name).mkdir(parents=True)
        (workspace / "old" / role.name / "bundle.pt").write_bytes(b"PK\x03\x04 cut short")
    assert "old/plain/bundle.pt" in fails(["--bundles", "old"], capsys)
    assert [path.name for path in workspace.iterdir()] == ["old"]


def test_nodes_are_found_in_order(workspace):
    assert [path.parts[-2:] for path in find_nodes()] == list(NODES)


def test_defaults_and_help(capsys):
    assert parse([]) == Options()
    assert parse([]).robot == "panda" and parse([]).episodes == 20 and not parse([]).gui
    with pytest.raises(SystemExit) as exit_:
        parse(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for word in ("--robot", "--steps", "--seed", "--keep-running", "--headless", "--gui", "metrics.json", "examples:"):
        assert word in text


def test_default_folders_are_never_shared(workspace):
    first, second = make_folder(Options()), make_folder(Options())
    assert first != second and first.is_dir() and second.is_dir()
    assert first.parent.name == "runs" and first.name.startswith("demo-")


def test_overwrite_clears_what_a_demo_wrote_and_nothing_else(workspace):
    out = workspace / "out"
    (out / "live-plain").mkdir(parents=True)
    (out / "plain").mkdir()
    demo_s = (
        "metrics.json",
        "report.html",
        "traces.png",
        "train-plain.log",
        "live-plain/recording.npz",
        "live-plain/x.log",
    )
    others = ("notes.txt", "photo.png", "live-plain/notes.txt", "plain/bundle.pt")
    for name in (*demo_s, *others):
        (out / name).write_text("")
    clear(out)
    assert not any((out / name).exists() for name in demo_s)
    assert all((out / name).exists() for name in others)


def test_a_run_says_that_it_is_incomplete_until_its_end(workspace, capsys, monkeypatch):
    from qgf_core.errors import QgfError

    def fail(*_, **__):
        assert (workspace / "out" / INCOMPLETE).exists()
        raise QgfError("training: plain: it failed")

    monkeypatch.setattr("qgf_demo.demo.train_both", fail)
    assert main(["--out", "out"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "qgf: error: training: plain: it failed"
    assert lines[-2] == "qgf: what lies in out is partial: there is no report"
    assert (workspace / "out" / INCOMPLETE).exists()
