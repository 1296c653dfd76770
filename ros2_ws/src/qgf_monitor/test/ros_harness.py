# SPDX-License-Identifier: Apache-2.0
"""What tests of running nodes share: a listener to the monitor, and child processes. Needs ROS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from qgf_msgs.msg import SmoothnessReport, Spectrum


class Listener:
    """Hears everything that the monitor in a namespace publishes."""

    def __init__(self, domain: int, namespace: str) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.reports: dict[str, list[SmoothnessReport]] = defaultdict(list)
        self.spectra: dict[str, Spectrum] = {}
        self.diagnostics: list[dict[str, tuple[int, str]]] = []
        topic = f"{namespace}/monitor_node"
        self.node.create_subscription(SmoothnessReport, f"{topic}/report", self._report, 200)
        self.node.create_subscription(Spectrum, f"{topic}/spectrum", self._spectrum, 20)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnostic, 20)

        self._name = topic.lstrip("/")
        self.plain: dict[str, float] = {}
        self.node.create_subscription(Float64, f"{topic}/plain/command/band_rms",
                                      lambda m: self.plain.update({"command/band_rms": m.data}), 20)
        self._explain = self.node.create_client(Trigger, f"{topic}/explain")

    def explain(self) -> dict:
        """What ~/explain answers."""
        assert self._explain.wait_for_service(10.0)
        future = self._explain.call_async(Trigger.Request())
        self.until(future.done, "an explanation")
        return json.loads(future.result().message)

    def _report(self, message: SmoothnessReport) -> None:
        self.reports[message.source].append(message)

    def _spectrum(self, message: Spectrum) -> None:
        self.spectra[message.source] = message

    def _diagnostic(self, message: DiagnosticArray) -> None:
        self.diagnostics.append({s.name.split(": ")[1]: (s.level[0], s.message) for s in message.status
                                 if s.name.startswith(f"{self._name}: ")})

    def until(self, condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
        """Listen until the condition holds; fail after `timeout` [s]."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"not within {timeout} s: {what}; last diagnostics {self.diagnostics[-1:]}"
            self.executor.spin_once(timeout_sec=0.1)

    def latest(self, source: str) -> SmoothnessReport:
        return self.reports[source][-1]

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class Process:
    """A child in the test's domain that writes its standard error to a file."""

    def __init__(self, command: list[str], domain: int, errors: Path) -> None:
        self._errors = errors
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
        with errors.open("w") as file:
            self.popen = subprocess.Popen([sys.executable, *command], env=environment, stderr=file)

    def error_text(self) -> str:
        return self._errors.read_text()

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10.0)
