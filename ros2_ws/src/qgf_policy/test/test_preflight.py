# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest
import yaml

from qgf_core.config import find_config, load_yaml
from qgf_core.errors import BundleError, ConfigError
from qgf_core.robot import load_robot
from qgf_core.signing import load_private_key, make_keys, sign_bundle
from qgf_policy.checklist import check_bundle
from qgf_policy.parameters import PARAMETERS, PolicyParameters, defaults, judge_changes
from qgf_policy.preflight import inside, prepare, warm_up


@pytest.fixture
def parameters(bundle_path):
    return lambda **changes: dataclasses.replace(
        defaults(), **{"bundle": str(bundle_path), "allow_controller_without_timeout": True, **changes}
    )


def test_the_defaults_run_the_bundle_as_it_is(parameters, bundle_path):
    flight = prepare(parameters())
    assert flight.path == bundle_path and flight.robot.name == "panda"
    assert flight.runner.command_period == flight.runner.control_period == 10_000_000
    assert flight.settings.command_interface == "velocity" and flight.settings.stale_periods == 3.0
    warm_up(flight.bundle)


def test_a_robot_of_the_same_kind_is_accepted_and_names_the_topics(parameters, tmp_path):
    data = load_yaml(find_config("robots", "panda"))
    data |= {
        "topics": {"joint_states": "left/joint_states"},
        "command_rate": 200.0,
        "command_interface": "position",
    }
    path = tmp_path / "left.yaml"
    path.write_text(yaml.safe_dump(data))
    flight = prepare(parameters(robot=str(path)))
    assert flight.robot.topics.joint_states == "left/joint_states"
    assert flight.settings.command_interface == "position" and flight.runner.substeps == 2
    assert (
        prepare(parameters(robot=str(path), command_rate=400.0, command_interface="velocity")).runner.substeps
        == 4
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"robot": "iiwa"}, "made for joints .* of 'panda', the robot 'iiwa' has"),
        ({"robot": "nobody"}, "unknown robot 'nobody'"),
        ({"control_rate": 50.0}, "50 Hz is not the 100 Hz"),
        ({"command_rate": 250.0}, "no multiple of the control rate"),
        ({"command_interface": "effort"}, "gravity compensation"),
        ({"command_interface": "torque"}, "'torque' is not known"),
        ({"stamped_commands": True, "command_interface": "joint_trajectory"}, "in a trajectory a stamp is when"),
        ({"state_age_from": "guess"}, "'guess' is not known"),
        ({"speed_scale": 2.0}, "speed_scale 2.0 lies outside"),
        ({"state_timeout": 0.004}, "stale after 4.0 ms, but the robot sends one every 5.0 ms"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(parameters, changes, words):
    with pytest.raises((ConfigError, BundleError), match=words) as refused:
        prepare(parameters(**changes))
    assert "\n" not in str(refused.value)


def test_velocities_need_a_controller_that_stops_by_itself_or_a_word_that_it_need_not(parameters, export, tmp_path):
    """forward_command_controller has no timeout; what its own YAML says of another one counts."""
    strict = {"allow_controller_without_timeout": False}
    with pytest.raises(ConfigError) as refused:
        prepare(parameters(**strict))
    assert str(refused.value) == (
        "policy_node: command_interface: the arm runs on at its last velocity if this node dies: "
        "forward_velocity_controller/commands has no timeout; choose joint_trajectory, state the controller's own "
        "command_timeout in the robot's YAML, or set allow_controller_without_timeout"
    )
    for interface in ("position", "joint_trajectory"):
        assert prepare(parameters(command_interface=interface, **strict)).settings.command_interface == interface
    assert prepare(parameters(dry_run=True, **strict)), "nothing is sent"
    data = load_yaml(find_config("robots", "panda")) | {"command_timeout": 0.1}
    path = tmp_path / "timed.yaml"
    path.write_text(yaml.safe_dump(data))
    assert prepare(parameters(robot=str(path), **strict)).settings.command_interface == "velocity"


def test_where_keys_are_trusted_only_bundles_signed_with_one_run(parameters, bundle_path, tmp_path):
    for stem, name in (("trusted/lab", "lab.pt"), ("other", "other.pt")):
        make_keys(tmp_path / stem)
        sign_bundle(bundle_path, load_private_key(tmp_path / f"{stem}.key"), tmp_path / name)
    trusted = str(tmp_path / "trusted")
    flight = prepare(parameters(bundle=str(tmp_path / "lab.pt"), trusted_keys=trusted))
    assert flight.bundle.signer.startswith("lab (") and "signed by lab (" in check_bundle(flight).found
    assert "not signed" in check_bundle(prepare(parameters())).found
    for name, words in (("other.pt", "not among the trusted keys"), (str(bundle_path), "is not signed")):
        with pytest.raises(BundleError, match=words) as refused:
            prepare(parameters(bundle=str(tmp_path / name), trusted_keys=trusted))
        assert "\n" not in str(refused.value)
    for places in (str(tmp_path / "none"), str(tmp_path / "lab.pt"), ":"):
        with pytest.raises(ConfigError):
            prepare(parameters(bundle=str(tmp_path / "lab.pt"), trusted_keys=places))
    # Nobody who may set parameters of a running node can switch it off.
    assert next(spec for spec in PARAMETERS if spec.name == "trusted_keys").counts == "start"


def test_a_robot_that_takes_efforts_only_is_refused_in_a_sentence(export, parameters, tmp_path):
    """Also where nobody chose it: by the robot's own description, in a bundle or in a file."""
    robot = dataclasses.replace(load_robot("panda"), command_interface="effort")
    path = tmp_path / "effort.yaml"
    path.write_text(yaml.safe_dump(load_yaml(find_config("robots", "panda")) | {"command_interface": "effort"}))
    for changes in ({"bundle": str(export(robot=robot))}, {"robot": str(path)}):
        with pytest.raises(ConfigError) as refused:
            prepare(parameters(**changes))
        assert str(refused.value) == (
            "policy_node: command_interface: 'effort' is refused: holding an arm by effort needs gravity "
            "compensation, which no robot declares; choose velocity, position or joint_trajectory"
        )


def test_the_bundles_own_rate_may_be_named(parameters):
    assert prepare(parameters(control_rate=100.0)).runner.control_period == 10_000_000


def test_no_bundle_a_missing_one_and_a_damaged_one(parameters, bundle_path, tmp_path):
    with pytest.raises(ConfigError, match="no bundle is given"):
        prepare(defaults())
    with pytest.raises(BundleError, match="cannot be read"):
        prepare(dataclasses.replace(defaults(), bundle=str(tmp_path / "none.pt")))
    damaged = tmp_path / "damaged.pt"
    data = bytearray(bundle_path.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256 does not match"):
        prepare(dataclasses.replace(defaults(), bundle=str(damaged)))


def test_a_robot_that_cannot_halt_in_its_stop_time_is_refused(export, parameters):
    robot = dataclasses.replace(load_robot("panda"), stop_time=0.2)
    with pytest.raises(ConfigError, match=r"a halt within the limits takes up to 0\.31 s, stop_time is 0\.2 s"):
        prepare(parameters(bundle=str(export(robot=robot))))


def test_only_the_configured_folder_may_be_loaded_from(tmp_path):
    folder = tmp_path / "bundles"
    folder.mkdir()
    (folder / "a.pt").touch()
    (tmp_path / "outside.pt").touch()
    (folder / "link.pt").symlink_to(tmp_path / "outside.pt")
    assert inside(folder, "a.pt") == inside(folder, str(folder / "a.pt")) == folder / "a.pt"
    for bad in ("../outside.pt", str(tmp_path / "outside.pt"), "link.pt"):
        with pytest.raises(BundleError, match="lies outside"):
            inside(folder, bad)


def test_every_parameter_is_described_once_and_typed():
    fields = {field.name for field in dataclasses.fields(PolicyParameters)}
    names = [spec.name for spec in PARAMETERS]
    assert len(set(names)) == len(names) and set(names) == fields
    for spec in PARAMETERS:
        assert spec.description.endswith(".") or spec.description[-1].isalnum()
        if spec.minimum is not None:
            assert spec.minimum <= spec.default <= spec.maximum
        assert not spec.choices or spec.default in spec.choices


@pytest.mark.parametrize("spec", PARAMETERS, ids=lambda spec: spec.name)
def test_every_parameter_can_be_changed_when_it_counts_and_is_refused_with_a_reason_when_not(spec):
    other = {"bool": not spec.default, "str": spec.choices[-1] if spec.choices else "another"}.get(
        type(spec.default).__name__, spec.maximum)
    for label in ("unconfigured", "inactive", "active", "activating", "deactivating"):
        reason = judge_changes({spec.name: other}, label)
        if spec.counts == "configure" and label != "unconfigured":
            assert reason.startswith(f"policy_node: {spec.name}: it counts at configure, and the node is {label}; ")
            assert "deactivate and clean up first" in reason and ("~/load_policy" in reason) == (spec.name == "bundle")
        else:
            assert reason == ""
    for wrong in (None, [1.0], "" if not isinstance(spec.default, str) else 7):
        assert spec.name in judge_changes({spec.name: wrong}, "unconfigured")
    if spec.maximum is not None:
        for beyond in (spec.minimum - 1, spec.maximum + 1, *[float("nan")][: isinstance(spec.default, float)]):
            assert f"policy_node: {spec.name}: " in judge_changes({spec.name: beyond}, "unconfigured")
    when = {"start": "Fixed at the start.", "configure": "Changes only while unconfigured.",
            "at once": "A change counts at once."}
    assert spec.meaning.endswith(f" {when[spec.counts]}") and "  " not in spec.meaning


def test_the_clock_is_not_changed_under_a_running_loop_and_one_bad_change_of_several_is_enough():
    assert judge_changes({"use_sim_time": True}, "unconfigured") == ""
    assert "use_sim_time: it counts at configure" in judge_changes({"use_sim_time": True}, "inactive")
    assert judge_changes({"qos_overrides./x.publisher.depth": 3}, "active") == "", "the middleware judges those"
    assert "dry_run" in judge_changes({"speed_scale": 0.5, "dry_run": True}, "active")
