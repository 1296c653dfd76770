# SPDX-License-Identifier: Apache-2.0
"""`./qgf doctor`, check by check, with the faults that it is to find; and the completion of the shell."""

from __future__ import annotations

import mmap
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "scripts"))
import doctor

ROOT = Path(__file__).resolve().parents[4]

# ------------------------------------------------------------------------------------------------------- doctor


@pytest.mark.parametrize(("others", "commands", "level", "words"), [
    ([], {}, "ok", ["none in domain"]),
    (["/policy_node"], {"/a_controller/commands": ["/policy_node"]}, "warn", ["/policy_node", "ROS_DOMAIN_ID"]),
    (["/policy_node", "/policy_node"], {}, "fail", ["two nodes are called /policy_node"]),
    (["/a", "/b"], {"/a_controller/commands": ["/a", "/b"]}, "fail", ["/a and /b all command", "end all but one"]),
    ([f"/node_{i}" for i in range(7)], {}, "warn", ["/node_4 and 2 more"]),
])
def test_other_nodes_in_the_domain(others, commands, level, words):
    finding = doctor.neighbours(others, commands)
    assert finding.level == level
    assert all(word in str(finding) for word in words), str(finding)


@pytest.mark.parametrize(("version", "cmdline", "config", "level", "word"), [
    ("#1 SMP PREEMPT_RT Debian 6.1", "quiet", "CONFIG_PREEMPT_RT=y", "ok", "PREEMPT_RT"),
    ("#1 SMP PREEMPT_DYNAMIC", "quiet", "CONFIG_PREEMPT_BUILD=y\nCONFIG_PREEMPT_NONE=y\n# CONFIG_PREEMPT is not set",
     "warn", "none: the kernel's own threads"),
    ("#1 SMP PREEMPT_DYNAMIC", "quiet preempt=full", "CONFIG_PREEMPT_NONE=y", "ok", "full"),
    ("#1 SMP PREEMPT_DYNAMIC", "preempt=voluntary", "CONFIG_PREEMPT=y", "warn", "preempt=full"),
    ("#1 SMP PREEMPT_DYNAMIC", "", "CONFIG_PREEMPT=y", "ok", "full"),
    ("#1 SMP PREEMPT_DYNAMIC", "", "CONFIG_PREEMPT_LAZY=y", "ok", "lazy"),
    ("#1 SMP PREEMPT_DYNAMIC", "", "", "ok", "does not tell"),
    ("#1 SMP", "preempt=full", "CONFIG_PREEMPT_VOLUNTARY=y", "warn", "voluntary"),
    ("#1 SMP PREEMPT", "", "", "ok", "full"),
])
def test_a_kernel_that_keeps_the_loop_waiting(version, cmdline, config, level, word):
    finding = doctor.preemption(version, cmdline, config)
    assert finding.level == level and word in str(finding), str(finding)


def test_a_host_that_may_stop_the_loop():
    own = "processor\t: 0\nflags\t\t: fpu sse avx2\nmodel name\t: a hypervisor's friend\n"
    assert doctor.virtualisation(own).level == "ok"
    finding = doctor.virtualisation(own.replace("avx2", "avx2 hypervisor lahf_lm"))
    assert finding.level == "warn" and "stay_awake:=false" in str(finding)


@pytest.mark.ros
def test_two_who_command_one_arm_are_found_in_the_graph():
    import rclpy
    from std_msgs.msg import Float64MultiArray

    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = [rclpy.create_node(name, context=context) for name in ("left_hand", "right_hand")]
    for node in nodes:
        node.create_publisher(Float64MultiArray, "forward_velocity_controller/commands", 1)
    try:
        (finding,) = doctor.check_neighbours()
    finally:
        for node in nodes:
            node.destroy_node()
        context.shutdown()
    assert finding.level == "fail"
    assert "/left_hand and /right_hand all command /forward_velocity_controller/commands" in finding.found


def test_shared_memory_of_the_killed_is_seen_and_that_of_the_living_is_not(tmp_path):
    for name in ("fastdds_0a", "fastdds_port7000", "fastrtps_0b"):
        (tmp_path / name).write_bytes(bytes(2_000_000))
    for name in ("fastdds_0a_el", "sem.fastdds_port7000_mutex", "another"):
        (tmp_path / name).touch()
    with (tmp_path / "fastdds_port7000").open("r+b") as file, mmap.mmap(file.fileno(), 0):
        (finding,) = doctor.check_shared_memory(tmp_path)
    assert finding.level == "warn" and f"2 segments of killed processes in {tmp_path}, 4 MB" in finding.found
    for path in tmp_path.glob("*fast*"):
        path.unlink()
    (finding,) = doctor.check_shared_memory(tmp_path)
    assert finding.level == "ok"


def test_the_clock(monkeypatch):
    monkeypatch.setattr(doctor, "clock_is_synchronised", lambda: False)
    assert next(iter(doctor.check_clock())).level == "warn"
    monkeypatch.setattr(doctor.time, "gmtime", lambda: doctor.time.struct_time((1970, 1, 1, 0, 0, 0, 3, 1, 0)))
    finding = next(iter(doctor.check_clock()))
    assert finding.level == "fail" and "1970" in finding.found and finding.remedy


def test_the_kernel_is_asked_for_the_clock():
    assert doctor.clock_is_synchronised() in (True, False, None)


@pytest.mark.parametrize(("domain", "level"), [("", "ok"), ("7", "ok"), ("200", "fail"), ("seven", "fail")])
def test_the_domain(monkeypatch, domain, level):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    assert next(iter(doctor.check_domain())).level == level


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, int(0.2e9)))  # type: ignore[attr-defined]
    finding = next(iter(doctor.check_disk()))
    assert finding.level == "fail" and finding.remedy


@pytest.mark.ros
def test_every_line_that_is_not_ok_tells_a_remedy():
    shown = subprocess.run([ROOT / "qgf", "doctor"], capture_output=True, text=True, timeout=120, check=False)
    lines = shown.stdout.splitlines()
    assert shown.returncode == 0 and len(lines) > 20, shown.stdout + shown.stderr
    for line in lines:
        assert line.startswith("ok ") or (line.startswith("warn ") and " -> " in line), line
    for subject in ("DDS between processes", "other nodes", "clock", "disk", "real-time priority", "torch threads"):
        assert subject in shown.stdout


# --------------------------------------------------------------------------------------------------- completion

CASES = [
    ("./qgf ev", ["evaluate"]),
    ("./qgf train --ro", ["--robot"]),
    ("./qgf train --algo td", ["td3", "td3-plain"]),
    ("./qgf train --robot pan", ["panda"]),
    ("./qgf evaluate x.pt --engine m", ["mujoco"]),
    ("./qgf evaluate x.pt --perturb h", ["harsh"]),
    ("./qgf bench upd", ["update"]),
    ("./qgf run qgf_sim si", ["sim_node"]),
    ("./qgf help doc", ["docs", "doctor"]),
    ("./qgf completion b", ["bash"]),
    ("./qgf evaluate runs/a", []),  # a file's name: left to the shell
]


def complete(shell: str, line: str) -> list[str]:
    words = line.split(" ")
    script = f"""source <(./qgf completion {shell})
        COMP_WORDS=({' '.join(words)})
        COMP_CWORD={len(words) - 1}
        _qgf
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    if shell == "zsh":
        script = f"emulate -L sh; setopt ksharrays\n{script}".replace("source <(./qgf completion zsh)", (
            'autoload -U +X compinit && compinit -u\neval "$(./qgf completion zsh)"'))
    done = subprocess.run([shell, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return sorted(done.stdout.split())


@pytest.mark.parametrize(("line", "wanted"), CASES, ids=lambda value: str(value))
def test_bash_completes(line, wanted):
    assert complete("bash", line) == wanted


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize(("line", "wanted"), CASES, ids=lambda value: str(value))
def test_zsh_completes(line, wanted):
    assert complete("zsh", line) == wanted


def test_an_unknown_shell_is_one_line():
    done = subprocess.run([ROOT / "qgf", "completion", "fish"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr == "qgf: error: completion needs bash or zsh; ./qgf completion --help\n"
