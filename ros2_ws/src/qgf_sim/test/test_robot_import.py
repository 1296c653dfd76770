# SPDX-License-Identifier: Apache-2.0
"""`robot import` and `robot check`: arms that work afterwards, and what is said of URDFs that cannot."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import yaml

from qgf_core.errors import QgfError
from qgf_core.robot import JointSpec, RobotSpec, load_robot
from qgf_sim import robot_cli
from qgf_sim.camera import Camera
from qgf_sim.env import ArmEnv
from qgf_sim.reach import load_reach
from qgf_sim.robot_double import DoubleSettings, RobotDouble, default_settings
from qgf_sim.robot_import import ImportOptions, field_docs, import_robot
from qgf_sim.urdf_check import Urdf

sys.path.insert(0, str(Path(__file__).parent))
from arms import SIX_JOINTS, THREE_JOINTS


def installed(package: str, path: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / path)


@pytest.fixture
def bring(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Imports a URDF's text by the command; returns exit code, what it printed, and the YAML's path."""
    def do(text: str, *arguments: str) -> tuple[int, str, Path]:
        urdf, out = tmp_path / "my_arm.urdf", tmp_path / "out" / "arm.yaml"
        urdf.write_text(text)
        code = robot_cli.main(["import", str(urdf), "--out", str(out), *arguments])
        captured = capsys.readouterr()
        return code, captured.out if code == 0 else captured.err, out
    return do


@pytest.mark.parametrize(("text", "home"), [(THREE_JOINTS, [0.3, 0.6, 0.9]), (SIX_JOINTS, [0, 0.5, 1.2, 0, 0.8, 0])])
def test_an_imported_arm_trains_and_runs(bring, text, home):
    code, printed, out = bring(text, "--home", *map(str, home))
    assert code == 0 and f"written: {out}" in printed
    robot = load_robot(str(out))
    assert robot.home.tolist() == home and robot.tool.link == "tip" and robot.base_frame == "base"
    env = ArmEnv(robot)
    env.reset(seed=1)
    for _ in range(20):
        observation, reward, *_ = env.step(np.full(len(home), 0.3, np.float32))
    assert np.isfinite(observation).all() and np.isfinite(reward)
    env.close()
    double = RobotDouble(robot, DoubleSettings(**default_settings(robot, load_reach())))  # type: ignore[arg-type]
    double.accept([0.2] * len(home), 0)
    for i in range(200):
        double.step(i * 5_000_000)
    moved = double.read()[1].position - home
    assert moved == pytest.approx([0.2 * (1.0 - 0.06)] * len(home), abs=0.02)  # latency and lag take 60 ms of it
    double.close()


def test_the_yaml_tells_every_field_with_a_comment(bring):
    text = bring(SIX_JOINTS)[2].read_text()
    lines = text.splitlines()
    for cls in (RobotSpec, JointSpec):
        docs = field_docs(cls)
        assert set(docs) == {field.name for field in dataclasses.fields(cls)}
        for name, doc in docs.items():
            if cls is RobotSpec and f"{name}:" not in [line.strip() for line in lines]:
                at = next(i for i, line in enumerate(lines) if line.startswith(f"{name}: "))
                assert doc in lines[at] or doc in lines[at - 1]
            else:
                assert name in text
    assert text.count("no URDF tells them, cautious") == 6
    assert set(yaml.safe_load(text)) == {field.name for field in dataclasses.fields(RobotSpec)}


@pytest.mark.parametrize(("name", "package", "path", "arguments"), [
    ("panda", "pybullet_data", "franka_panda/panda.urdf", []),
    ("iiwa", "pybullet_data", "kuka_iiwa/model.urdf", []),
    ("ur5e", "airo_models", "arms/ur5e/ur5e.urdf", ["--tool", "tool0"]),
])
def test_the_projects_arms_come_out_of_their_urdfs(tmp_path, name, package, path, arguments):
    out = tmp_path / f"{name}.yaml"
    ours = load_robot(name)
    home = ["--home", *map(str, ours.home)]
    urdf = installed(package, path)
    assert robot_cli.main(["import", urdf, "--name", name, "--out", str(out), *arguments, *home]) == 0
    again = load_robot(str(out))
    assert f"urdf: {package}:{path}" in out.read_text()
    for field in ("name", "urdf", "joint_names", "base_frame"):
        assert getattr(again, field) == getattr(ours, field)
    assert again.tool.link == ours.tool.link and (again.home == ours.home).all()
    # Ours are the manufacturer's where those are narrower.
    assert (again.position_lower <= ours.position_lower + 1e-3).all()
    assert (again.position_upper >= ours.position_upper - 1e-3).all()
    assert (again.velocity_limit >= ours.velocity_limit).all() and (again.effort_limit >= ours.effort_limit).all()
    assert robot_cli.main(["check", name]) == 0 and robot_cli.main(["check", str(out)]) == 0


def test_the_picture_shows_the_arm_where_it_is(bring):
    """Also an arm without any shape: the skeleton's end is where the kinematics says, from above as from below."""
    for text, home in ((THREE_JOINTS, "0.3 0.6 0.9"), (SIX_JOINTS, "0 0.5 1.2 0 0.8 0")):
        out = bring(text, "--force", "--home", *home.split())[2]
        picture = matplotlib.image.imread(out.with_suffix(".png"))[:, :, :3]
        assert picture.shape == (600, 800, 3)
        assert 0.005 < (picture.min(axis=2) < 0.95).mean() < 0.5
    with Camera(load_robot(str(out))) as camera:
        up, down = (np.argwhere(camera.image(np.array([0, lift, 0, 0, 0, 0])).min(axis=2) < 240).mean(axis=0)
                    for lift in (0.3, 2.3))
    assert up[0] < down[0] - 20  # rows grow downwards


def replaced(text: str, old: str, new: str, count: int = 1) -> str:
    assert old in text
    return text.replace(old, new, count)


INERTIAL = THREE_JOINTS[THREE_JOINTS.index("<inertial>"):THREE_JOINTS.index("</inertial>") + len("</inertial>")]
MESH = '<link name="base"><visual><geometry><mesh filename="{}"/></geometry></visual></link>'
REFUSED = {
    "no inertia": (replaced(THREE_JOINTS, INERTIAL, ""),
        "joint 'turn': link 'link_1', which it moves, has no mass; give"),
    "no moments": (replaced(THREE_JOINTS, 'ixx="0.01"', 'ixx="-0.01"'),
        "link 'link_1': mass 1 kg with principal moments"),
    "mass no number": (replaced(THREE_JOINTS, 'mass value="1.0"', 'mass value="nan"'),
                       "link 'link_1': inertial value 'nan' is no finite number; mend"),
    "zero limits": (replaced(THREE_JOINTS, 'lower="-2.5" upper="2.5"', 'lower="0" upper="0"'),
                    "joint 'turn': position limits 0, 0 rad leave no room; correct"),
    "zero velocity": (replaced(THREE_JOINTS, 'velocity="2.0"', 'velocity="0"'),
                      "joint 'turn': has 0 as velocity limit; correct the URDF, or give --velocity [rad/s]"),
    "no effort": (replaced(THREE_JOINTS, 'effort="40"', ""),
        "joint 'turn': has no effort limit; correct the URDF, or"),
    "degrees": (replaced(THREE_JOINTS, 'upper="2.5"', 'upper="170"'),
                "joint 'turn': position limits -2.5, 170 look like degrees; give rad"),
    "infinite": (replaced(THREE_JOINTS, 'upper="2.5"', 'upper="inf"'),
        "joint 'turn': limit upper inf is not finite; mend"),
    "words": (replaced(THREE_JOINTS, 'upper="2.5"', 'upper="far"'),
        "joint 'turn': limit upper 'far' is no number; mend"),
    "joint with a space": (replaced(THREE_JOINTS, 'name="lift"', 'name="lift up"'),
                           "joint 'lift up': its name is empty or holds a space; rename it"),
    "link with a space": (THREE_JOINTS.replace("link_2", "upper arm"),
                          "link 'upper arm': its name is empty or holds a space; rename it"),
    "robot with a space": (replaced(THREE_JOINTS, 'name="three"', 'name="my arm"'),
                           "robot: the name 'my arm' has other signs than letters, digits, - and _; give --name"),
    "cycle": (replaced(THREE_JOINTS, '<parent link="base"/>', '<parent link="link_3"/>'),
              "links ['link_1', 'link_2', 'link_3', 'tip'] form a loop; mend the URDF"),
    "two parents": (replaced(THREE_JOINTS, '<child link="tip"/>', '<child link="link_1"/>'),
                    "joint 'tip_mount': link 'link_1' has two parents; mend"),
    "prismatic": (replaced(THREE_JOINTS, 'name="lift" type="revolute"', 'name="lift" type="prismatic"'),
                  "no end of the tree is moved by turning joints alone; give --tool, one of: base, link_1"),
    "mimic": (replaced(THREE_JOINTS, '<child link="link_3"/>', '<child link="link_3"/><mimic joint="lift"/>'),
              "joint 'bend': mimics 'lift' and cannot be driven by itself; make it fixed, or choose a --tool"),
    "missing mesh": (replaced(THREE_JOINTS, '<link name="base"/>', MESH.format("meshes/base.stl")),
                     "link 'base': there is no mesh 'meshes/base.stl'; import it with --without-meshes"),
    "missing package": (replaced(THREE_JOINTS, '<link name="base"/>', MESH.format("package://arm_description/base.stl")),
                        "link 'base': there is no mesh 'package://arm_description/base.stl'; put the folder "
                        "'arm_description' beside the URDF's"),
    "xacro": ('<robot name="x" xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:include filename="y"/></robot>',
              "it is a xacro file; expand it"),
    "no xml": ("<robot", "not well-formed XML"),
    "no joints": ('<robot name="x"><link name="base"/></robot>', "no end of the tree is moved by turning joints alone"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_urdf_that_cannot_be_used_is_named_in_one_line_and_nothing_is_written(bring, case):
    text, message = REFUSED[case]
    code, printed, out = bring(text)
    assert code == 2 and printed.count("\n") == 1
    assert printed.startswith("qgf: error: ") and "my_arm.urdf: " in printed and message in printed
    assert not out.parent.exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--tool", "hand"], "tool 'hand': there is no such link; choose one of: base, link_1, link_2, link_3, tip"),
    (["--tool", "base"], "tool 'base': no joint moves it; choose another --tool"),
    (["--home", "0", "0"], "--home: 2 values for 3 joints; give one per joint, from base to tool"),
    (["--home", "0", "0", "60"], "joint 'bend': home 60.0 rad lies outside its limits"),
    (["--home", "0", "0", "2.49"], "joint 'bend': home 2.49 rad lies within position_margin 0.05 rad"),
    (["--jerk", "nan"], "jerk[0]: nan is not finite"),
    (["--velocity", "3.0"], "velocity: 3.0 is more than the URDF's 2.0; lower it"),
    (["--name", "a/b"], "the name 'a/b' has other signs"),
    (["--out", "arm.json"], "--out: 'arm.json' does not end in .yaml"),
])
def test_options_that_do_not_fit(bring, arguments, message):
    code, printed, out = bring(THREE_JOINTS, *arguments)
    assert (code, printed.count("\n")) == (2, 1) and message in printed
    assert not out.parent.exists()


def test_a_yaml_that_exists_is_kept_unless_forced(bring):
    out = bring(THREE_JOINTS)[2]
    before = out.read_bytes()
    code, printed, _ = bring(THREE_JOINTS, "--home", "0.1", "0.1", "0.1")
    assert code == 2 and "exists already; give --force" in printed and out.read_bytes() == before
    assert bring(THREE_JOINTS, "--home", "0.1", "0.1", "0.1", "--force")[0] == 0 and out.read_bytes() != before


def test_without_meshes_a_urdf_with_missing_ones_works_and_survives_its_source(bring, tmp_path):
    text = replaced(SIX_JOINTS, '<link name="base"/>', MESH.format("package://gone/base.stl"))
    code, _, out = bring(text, "--without-meshes")
    assert code == 0 and "urdf: arm.urdf" in out.read_text()
    (tmp_path / "my_arm.urdf").unlink()
    assert robot_cli.main(["check", str(out)]) == 0


def test_meshes_are_found_where_pybullet_finds_them(tmp_path):
    """Below the URDF's folder and every folder above it, with package:// or without: shown by loading, not by rule."""
    import pybullet

    cube = Path(installed("pybullet_data", "cube.obj")).read_bytes()
    for where, name in (("urdf/meshes/a.obj", "meshes/a.obj"), ("meshes/b.obj", "package://meshes/b.obj"),
                        ("arm_description/c.obj", "package://arm_description/c.obj"), ("none/d.obj", "package://x/d.obj")):
        (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / where).write_bytes(cube)
        path = tmp_path / "urdf" / "arm.urdf"
        path.write_text(replaced(THREE_JOINTS, '<link name="base"/>', MESH.format(name)))
        client = pybullet.connect(pybullet.DIRECT)
        try:
            body = pybullet.loadURDF(str(path), physicsClientId=client)
            seen = bool(pybullet.getVisualShapeData(body, physicsClientId=client))
        except pybullet.error:
            seen = False
        pybullet.disconnect(client)
        assert (not Urdf(path).missing_meshes()) is seen is (where != "none/d.obj"), name


def test_a_continuous_joint_gets_limits_and_what_hangs_beside_the_chain_is_told(bring):
    finger = ('<link name="finger"/><joint name="slide" type="prismatic"><parent link="tip"/><child link="finger"/>'
              '<limit lower="0" upper="0.04" velocity="1" effort="1"/></joint></robot>')
    text = replaced(THREE_JOINTS, 'name="turn" type="revolute"', 'name="turn" type="continuous"')
    text = replaced(replaced(text, "</robot>", finger), 'lower="-2.5" upper="2.5" ', "")
    code, printed, out = bring(text, "--tool", "tip")
    assert code == 0 and "not driven, held where they are: slide (prismatic)" in printed
    assert load_robot(str(out)).joints[0].position == (-6.2832, 6.2832)
    assert "position: a continuous joint, one turn to each side" in out.read_text()


def test_an_arm_too_weak_for_its_weight_is_told(bring):
    code, printed, _ = bring(THREE_JOINTS.replace('effort="40"', 'effort="1"'), "--home", "0", "1.2", "0.5")
    assert code == 0 and "joint 'lift': its effort limit 1 N m does not hold the arm at home" in printed


def test_a_folder_that_cannot_be_written(bring, tmp_path):
    (tmp_path / "out").write_text("a file")
    code, printed, _ = bring(THREE_JOINTS)
    assert code == 2 and "cannot be written" in printed and printed.count("\n") == 1
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.parametrize(("key", "value", "message"), [
    ("colour", "red", "colour: unknown key; known keys: "),
    ("state_rate", float("nan"), "state_rate: nan is not finite"),
    ("stop_time", "soon", "stop_time: expected float, got 'soon'"),
])
def test_check_names_the_place_in_a_yaml(bring, capsys, key, value, message):
    out = bring(THREE_JOINTS)[2]
    data = yaml.safe_load(out.read_text())
    out.write_text(yaml.safe_dump({**data, key: value}))
    assert robot_cli.main(["check", str(out)]) == 2
    assert message in capsys.readouterr().err


def test_import_leaves_the_choice_of_several_tools_to_the_user(tmp_path):
    path = tmp_path / "two.urdf"
    path.write_text(replaced(THREE_JOINTS, "</robot>", '<link name="camera"/><joint name="c" type="fixed">'
                             '<parent link="link_3"/><child link="camera"/></joint></robot>'))
    with pytest.raises(QgfError, match="several links may be the tool; give --tool, one of: tip, camera"):
        import_robot(path, ImportOptions())
    assert import_robot(path, ImportOptions(tool="camera")).robot.tool.link == "camera"
