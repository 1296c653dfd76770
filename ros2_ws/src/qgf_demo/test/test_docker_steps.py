# SPDX-License-Identifier: Apache-2.0
"""The steps of the Dockerfiles, really run, each image in a root folder of its own, where no container engine is.

    ./qgf test -m slow -k docker_steps

Minutes and gigabytes each. Stand-ins for the base images: for Python's Debian 12, of which it is made; for ROS' one
with the ROS wheels below /opt/ros, so that there is no ros2 command and no Ubuntu.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from dockerfiles import ROOT, Container, debian, missing, steps

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"Dockerfiles' steps need {missing()}")]
UID = 1001
PLACE = "home/qgf/qgf"
DISTRIBUTION = "/opt/ros/kilted"
SETUP = f"""
site={DISTRIBUTION}/lib/python3.11/site-packages
export ROS_DISTRO=kilted ROS_VERSION=2 ROS_PYTHON_VERSION=3 RMW_IMPLEMENTATION=rmw_fastrtps_cpp
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1 AMENT_PREFIX_PATH={DISTRIBUTION} CMAKE_PREFIX_PATH={DISTRIBUTION}
export PYTHONPATH=$site${{PYTHONPATH:+:$PYTHONPATH}} LD_LIBRARY_PATH={DISTRIBUTION}/lib
for folder in $site/ros_*.libs; do LD_LIBRARY_PATH+=:$folder; done
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Debian 12 with its Python."""
    folder = tmp_path_factory.mktemp("debian") / "root"
    debian(folder, "python3,python3-venv,python3-dev")
    return folder


@pytest.fixture
def container(bare, tmp_path):
    """A root of one's own."""
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", bare, root], check=True)
    yield Container(root, {"UID": str(UID)})
    shutil.rmtree(root)


def build(container, dockerfile, target):
    """Every step, with its time."""
    for word, rest in steps(ROOT / "docker" / dockerfile, target):
        begun = time.monotonic()
        container.step(word, rest)
        if word == "RUN":
            print(f"{time.monotonic() - begun:6.0f} s  RUN {rest[:100]}")
    size = subprocess.run(["du", "-sm", container.root], capture_output=True, text=True, check=True).stdout.split()[0]
    print(f"{dockerfile} {target}: {size} MB")


def test_docker_steps_of_train(container):
    container.run(["ln", "-s", "/usr/bin/python3", "/usr/local/bin/python"])  # as Python's image has it
    build(container, "train.Dockerfile", "train")
    container.run([*container.entrypoint, "train", "--robot", "panda", "--task", "reach", "--steps", "1000",
                   "--out", "runs/mine"])
    bundle = container.root / PLACE / "runs/mine/bundle.pt"
    assert bundle.stat().st_uid == UID
    container.run([*container.entrypoint, "evaluate", "runs/mine/bundle.pt", "--episodes", "1"])


def test_docker_steps_of_full(container):
    container.run(["ln", "-s", "/usr/bin/python3", "/usr/local/bin/python"])
    build(container, "train.Dockerfile", "full")
    told = container.run(["./qgf", "doctor"])
    assert "fail " not in told and "qgf_msgs" in told, told
    command = ["./qgf", "run", "qgf_sim", "sim_node", "--ros-args", "-p", "robot:=panda"]
    assert_healthy(container, command, "/sim_node")


def test_docker_steps_of_robot(container):
    container.environment["ROS_DISTRO"] = "kilted"
    shutil.copy(ROOT / "requirements/ros.txt", container.root / "tmp")
    shutil.copy(ROOT / "scripts/mend_ros_wheels.py", container.root / "tmp")
    python = f"{DISTRIBUTION}/bin/python"
    numpy = "numpy==1.26.4"  # that of the distribution's Ubuntu
    container.run(["python3", "-m", "venv", DISTRIBUTION])
    container.run([python, "-m", "pip", "install", "-q", "-r", "/tmp/ros.txt", numpy])
    container.run([python, "-m", "pip", "install", "-q", "--target", "/usr/local/lib/python3.11/dist-packages", numpy])
    container.run([python, "/tmp/mend_ros_wheels.py"])
    # The wheels were made beside numpy 2, and name its headers' place.
    headers = container.root / DISTRIBUTION[1:] / "lib/python3.11/site-packages/numpy/_core"
    headers.mkdir(exist_ok=True)
    (headers / "include").symlink_to("../core/include")
    (container.root / DISTRIBUTION[1:] / "setup.bash").write_text(SETUP)

    build(container, "robot.Dockerfile", "")
    site = container.root / PLACE / ".venv/lib/python3.11/site-packages"
    assert (site / "torch").is_dir() and not [name for name in ("pybullet_data", "gymnasium") if (site / name).exists()]
    node = f"/{PLACE}/ros2_ws/install/lib/qgf_policy/policy_node"
    assert_healthy(container, [*container.entrypoint, node], "/policy_node")


def assert_healthy(container, command, name):
    """The node comes up, answers the health check as compose.yaml asks it, and ends with Ctrl-C."""
    domain = {"ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID", "0"), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    container.environment |= domain
    node = subprocess.Popen(container.command(command), start_new_session=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    try:
        check = container.command([f"/{PLACE}/docker/healthcheck.sh", name])
        end = time.monotonic() + 90.0  # as compose.yaml: three tries and a start
        while subprocess.run(check, capture_output=True, check=False).returncode != 0:
            assert node.poll() is None and time.monotonic() < end, node.stdout.read()
        os.killpg(node.pid, signal.SIGINT)
        assert node.wait(20.0) == 0, node.stdout.read()
    finally:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()
