# SPDX-License-Identifier: Apache-2.0
"""The SROS2 policy gives every node what it has in a running graph, and little else; `./qgf keystore` makes of it what
DDS Security asks for, checked by openssl."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from qgf_core.errors import ConfigError
from qgf_demo.domain import Domain
from qgf_demo.golden import record

ROOT = Path(__file__).resolve().parents[4]
POLICY = ROOT / "config" / "security" / "qgf.policy.xml"
NODES = {"policy_node", "monitor_node", "governor_node", "dashboard", "preflight", "operator", "trainer_node",
         "sim_node", "camera_node", "identify"}


@pytest.fixture(scope="module")
def keystore():
    """scripts/keystore.py."""
    specification = importlib.util.spec_from_file_location("keystore", ROOT / "scripts" / "keystore.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rights(keystore):
    return keystore.read_policy(POLICY)


@pytest.fixture(scope="module")
def store(keystore, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "keys"
    old = os.umask(0)
    try:
        assert set(keystore.make_keystore(folder, POLICY, 42, "", 30)) == {f"/{name}" for name in NODES}
    finally:
        os.umask(old)
    return folder


def openssl(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=20)


def test_names_become_those_of_dds(keystore, tmp_path):
    """By hand, as SROS2's own template writes them."""
    policy = tmp_path / "policy.xml"
    policy.write_text("""<policy version="0.2.0"><enclaves><enclave path="/talker"><profiles>
      <profile ns="/left" node="talker">
      <topics publish="ALLOW"><topic>~/a</topic><topic>b</topic><topic>/c</topic></topics>
      <topics subscribe="ALLOW"><topic>d</topic></topics><services reply="ALLOW"><service>~/s</service></services>
      <services request="ALLOW"><service>/t</service></services><actions call="ALLOW"><action>go</action></actions>
      </profile></profiles></enclave></enclaves></policy>""")
    found = keystore.read_policy(policy)["/talker"]
    action = "left/go/_action/"
    assert found.publish == {
        "ros_discovery_info", "rt/left/talker/a", "rt/left/b", "rt/c", "rr/left/talker/sReply", "rq/tRequest",
        f"rq/{action}send_goalRequest", f"rq/{action}cancel_goalRequest", f"rq/{action}get_resultRequest"}
    assert found.subscribe == {
        "ros_discovery_info", "rt/left/d", "rq/left/talker/sRequest", "rr/tReply", f"rt/{action}feedback",
        f"rt/{action}status", f"rr/{action}send_goalReply", f"rr/{action}cancel_goalReply",
        f"rr/{action}get_resultReply"}
    moved = keystore.read_policy(policy, "/cell")["/cell/talker"]
    assert "rt/cell/left/talker/a" in moved.publish and "rt/c" in moved.publish
    for old, new, words in (('version="0.2.0"', 'version="0.1.0"', "0.2.0"), ("<enclave ", "<enclave<", "no policy"),
                            ('publish="ALLOW"', 'publish="DENY"', "leave it out"), ("publish=", "shout=", "not known"),
                            ("<policy", "<other", "no policy")):
        policy.write_text(policy.read_text().replace(old, new))
        with pytest.raises(ConfigError, match=words):
            keystore.read_policy(policy)
        policy.write_text(policy.read_text().replace(new, old))


def test_only_those_who_must_may_command_the_arm_or_the_policy(rights):
    def who(word, kind="publish"):
        return {name for name, right in rights.items() if any(word in topic for topic in getattr(right, kind))}
    assert who("_controller/") == {"/policy_node", "/identify"}
    assert who("rt/joint_states") == {"/sim_node"}
    assert who("rq/policy_node/load_policyRequest") == {"/operator", "/trainer_node"}
    assert who("rq/policy_node/change_stateRequest") == {"/operator", "/dashboard"}
    assert who("rq/policy_node/set_parametersRequest") == {"/operator", "/governor_node"}
    assert who("rq/policy_node/estopRequest") == {"/operator", "/governor_node", "/dashboard"}
    assert who("rt/policy_node/goal") == {"/operator"}
    wild = {topic for right in rights.values() for topic in right.publish | right.subscribe if "*" in topic}
    assert wild == {"rt/monitor_node/plain/*"}


def test_certificates_and_documents_are_signed_and_nothing_secret_is_readable(store):
    ca = store / "public" / "ca.cert.pem"
    assert stat.S_IMODE((store / "private").stat().st_mode) == 0o700
    for path in store.rglob("*"):
        if path.is_file():
            secret = b"PRIVATE KEY" in path.read_bytes()
            assert stat.S_IMODE(path.stat().st_mode) == (0o600 if secret else 0o644), path
            assert secret == path.name.endswith("key.pem")
    for name in NODES:
        folder = store / "enclaves" / name
        done = openssl("verify", "-CAfile", ca, folder / "cert.pem")
        assert done.returncode == 0, done.stderr
        subject = openssl("x509", "-in", folder / "cert.pem", "-noout", "-subject").stdout
        assert subject.strip() == f"subject=CN = /{name}"
        public = openssl("x509", "-in", folder / "cert.pem", "-noout", "-pubkey").stdout
        assert public == openssl("pkey", "-in", folder / "key.pem", "-pubout").stdout
        for file in ("permissions", "governance"):
            done = openssl("smime", "-verify", "-text", "-in", folder / f"{file}.p7s", "-CAfile", ca)
            assert done.returncode == 0, done.stderr
            root = ElementTree.fromstring(done.stdout)
            assert root.tag == "dds"
        grant = ElementTree.fromstring((folder / "permissions.xml").read_bytes()).find("permissions/grant")
        assert grant.find("subject_name").text == f"CN=/{name}" and grant.find("default").text == "DENY"
        assert [domain.text for domain in grant.find("allow_rule/domains")] == ["42"]
    changed = (store / "enclaves/policy_node/permissions.p7s").read_text().replace("DENY", "ALLOW")
    (store.parent / "changed.p7s").write_text(changed)
    assert openssl("smime", "-verify", "-text", "-in", store.parent / "changed.p7s", "-CAfile", ca).returncode != 0


def test_run_again_it_keeps_the_keys_and_tells_damage(keystore, store):
    before = {path: path.read_bytes() for path in store.rglob("*.pem")}
    keystore.make_keystore(store, POLICY, 43, "", 30)
    assert before == {path: path.read_bytes() for path in store.rglob("*.pem")}
    assert b"<id>43</id>" in (store / "enclaves/policy_node/permissions.xml").read_bytes()
    key = store / "private/ca.key.pem"
    whole = key.read_bytes()
    for damaged in (whole[:50], b"", (store / "enclaves/policy_node/key.pem").read_bytes()):
        key.write_bytes(damaged)
        with pytest.raises(ConfigError) as caught:
            keystore.make_keystore(store, POLICY, 43, "", 30)
        assert "\n" not in str(caught.value)
    key.write_bytes(whole)


# -------------------------------------------------------------------------------------------------- a running graph

OPTIONAL = {
    "policy_node": {"forward_position_controller/commands", "joint_trajectory_controller/joint_trajectory",
                    "policy_node/reference", "clock", "tf", "tf_static"},
    "monitor_node": {"monitor_node/plain/*"},
    "governor_node": set(),
}
"""Topics that a node has with other parameters only."""

PROBE = """
import json, sys, time, rclpy
rclpy.init()
node = rclpy.create_node("probe", enable_rosout=False, start_parameter_services=False)
names, end = sys.argv[1:], time.monotonic() + 60
ask = (node.get_publisher_names_and_types_by_node, node.get_subscriber_names_and_types_by_node,
       node.get_service_names_and_types_by_node, node.get_client_names_and_types_by_node)
last, found = None, {}
while time.monotonic() < end and (found != last or len(found) < len(names)):  # until nothing more appears
    last = found
    time.sleep(1.5)
    there = {name for name, _ in node.get_node_names_and_namespaces()}
    found = {name: [sorted(topic for topic, _ in by(name, "/")) for by in ask] for name in names if name in there}
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.ros
def test_every_node_has_the_rights_that_it_uses_and_no_others(rights, tmp_path):
    """policy_node, monitor_node and governor_node as they run on a robot; the policy node configured with a bundle."""
    record("panda", tmp_path / "bundle.pt")
    install = ROOT / "ros2_ws/install/lib"
    with Domain() as domain:
        environment = os.environ | {"ROS_DOMAIN_ID": str(domain.id)}
        commands = [[install / "qgf_policy/policy_node", "--ros-args", "-p", f"bundle:={tmp_path / 'bundle.pt'}", "-p",
                     "autostart:=true", "-p", "allow_controller_without_timeout:=true"],
                    [install / "qgf_monitor/monitor_node"], [install / "qgf_monitor/governor_node"]]
        children = [subprocess.Popen(list(map(str, c)), env=environment, stderr=subprocess.DEVNULL) for c in commands]
        try:
            done = subprocess.run([sys.executable, "-c", PROBE, *OPTIONAL], env=environment, capture_output=True,
                                  text=True, timeout=120)
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(20)
    graph = json.loads(done.stdout)
    assert set(graph) == set(OPTIONAL), done.stderr
    for node, (publishers, subscribers, services, clients) in graph.items():
        services, clients = ([s.strip("/") for s in group] for group in (services, clients))
        used = ({f"rt{topic}" for topic in publishers}, {f"rt{topic}" for topic in subscribers})
        used[0].update([f"rr/{name}Reply" for name in services], [f"rq/{name}Request" for name in clients])
        used[1].update([f"rq/{name}Request" for name in services], [f"rr/{name}Reply" for name in clients])
        allowed = rights[f"/{node}"].publish, rights[f"/{node}"].subscribe
        optional = {f"rt/{topic}" for topic in OPTIONAL[node]} | {"ros_discovery_info"}
        for has, may in zip(used, allowed, strict=True):
            assert has <= may, f"{node} is not permitted {sorted(has - may)}"
            assert may - has <= optional, f"{node} needs no right to {sorted(may - has - optional)}"


@pytest.mark.ros
def test_where_security_is_enforced_nothing_runs_without_it(store):
    """The ROS wheels' Fast DDS has no security: a node that is to be secured does not start, in one line."""
    environment = os.environ | {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce",
                                "ROS_SECURITY_KEYSTORE": str(store)}
    install = ROOT / "ros2_ws/install/lib"
    command = [install / "qgf_policy/policy_node", "--ros-args", "--enclave", "/policy_node"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if "doesn't have the security libraries" not in done.stderr:
        pytest.skip("this Fast DDS carries DDS Security: the refusal is not to be seen here")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("qgf: error: ")]
