# SPDX-License-Identifier: Apache-2.0
"""policy_node where the worst comes: bundles that nobody vouches for, a model that fails at run time. Over DDS."""

import time
from pathlib import Path

import numpy as np
import pytest

from qgf_core.signing import fingerprint, load_private_key, load_public_key, make_keys, sign_bundle
from qgf_msgs.msg import PolicyStatus
from qgf_msgs.srv import LoadPolicy

pytestmark = pytest.mark.ros

RAISING = Path(__file__).resolve().parents[4] / "benchmarks" / "fault_injection" / "raising_node.py"


@pytest.fixture(scope="module")
def folder(reaching_bundle, tmp_path_factory):
    """trusted/lab.pub, and the same bundle signed by lab twice, by another, and by nobody."""
    folder = tmp_path_factory.mktemp("trust")
    for name in ("trusted/lab", "other"):
        make_keys(folder / name)
    lab, other = (load_private_key(folder / name) for name in ("trusted/lab.key", "other.key"))
    for key, name in ((lab, "first.pt"), (lab, "second.pt"), (other, "other.pt")):
        sign_bundle(reaching_bundle, key, folder / name)
    (folder / "unsigned.pt").write_bytes(reaching_bundle.read_bytes())
    return folder


@pytest.fixture(scope="module")
def active(harness, domain, operator, arm, folder):
    """The operator of a node that trusts lab alone, and whose model fails while folder/failing exists."""
    child = harness.policy_node(domain, folder / "stderr", start=[RAISING, folder / "failing"],
                                bundle=folder / "first.pt", trusted_keys=folder / "trusted", autostart="true")
    operator.reach(PolicyStatus.HOLDING, timeout=60.0)
    operator.bring_to_active()
    yield operator
    assert child.popen.poll() is None and "Traceback" not in child.text()
    child.end()


def test_load_policy_refuses_what_no_trusted_key_has_signed_and_the_arm_moves_on(active, folder):
    active.until_moving()
    active.forget()
    name = fingerprint(load_public_key(folder / "other.pub"))
    for bundle, words in (("unsigned.pt", "is not signed, and trusted keys are set"),
                          ("other.pt", f"signed with key {name}, which is not among the trusted keys")):
        answer = active.call(LoadPolicy, "load_policy", LoadPolicy.Request(bundle=bundle))
        assert not answer.success and words in answer.message and "\n" not in answer.message
    refused = active.put("trusted_keys", "")
    assert not refused.successful and "read-only" in refused.reason
    answer = active.call(LoadPolicy, "load_policy", LoadPolicy.Request(bundle="second.pt"))
    assert answer.success, answer.message
    active.until(lambda: active.statuses and active.statuses[-1].bundle == str(folder / "second.pt"), "the second")
    assert {status.mode for status in active.statuses} == {PolicyStatus.ACTIVE}
    active.check_limits()


def test_a_model_that_fails_at_run_time_brings_the_arm_to_rest_until_it_works_again(active, folder):
    active.bring_to_active()
    active.until_moving()
    active.forget()
    begun = time.monotonic()
    (folder / "failing").touch()
    try:
        active.until(lambda: any("running the policy failed" in c.fault for c in active.commands), "the fault", 5.0)
        reaction = time.monotonic() - begun
        active.until(lambda: active.mode() == PolicyStatus.HOLDING and not np.any(active.commands[-1].command), "rest")
        status = active.statuses[-1]
        assert status.faults_model_exception > 0 and "running the policy failed" in status.fault
        assert "\n" not in status.fault and len(status.fault) < 400
        active.check_limits()
    finally:
        (folder / "failing").unlink()
    active.reach(PolicyStatus.ACTIVE, timeout=5.0)
    active.check_limits()
    assert reaction < 1.0  # generous on a busy machine: the bench states the reaction time
