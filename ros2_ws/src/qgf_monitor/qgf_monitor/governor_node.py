# SPDX-License-Identifier: Apache-2.0
"""governor_node: acts upon the monitor's reports, by the policy node's parameter command_mode and its ~/estop.

Nothing starts it by itself, and a policy node without the parameter governor_lag refuses it: it is off by default.
Wiring only; the decisions stand in governor.py. What it wants is compared with what the policy's status tells, and
asked for again until they agree; if this node ends, the last step stays, for a person to take back.
"""

from __future__ import annotations

import sys
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import Parameter, ParameterDescriptor, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_srvs.srv import Trigger

from qgf_monitor.governor import Governor, Step, load_governor_config
from qgf_monitor.run_node import run
from qgf_msgs.msg import PolicyStatus, SmoothnessReport

PERIOD = 0.1
"""Time between two decisions [s]."""
ASK_AGAIN = 1.0
"""Time between two requests for the same step [s]."""
STATUS_STALE = 1.5
"""A status older than this tells nothing [s]."""
MODES = {getattr(PolicyStatus, name): name
         for name in ("UNCONFIGURED", "INACTIVE", "RAMPING", "ACTIVE", "HOLDING", "HALTING", "ESTOPPED")}


class GovernorNode(Node):
    """:raises QgfError: the configuration cannot be used."""

    def __init__(self) -> None:
        super().__init__("governor_node")
        policy = self._parameter("policy", "policy_node", "Name of the policy node to govern, relative or absolute.")
        monitor = self._parameter("monitor", "monitor_node", "Name of the monitor node whose reports count.")
        path = self._parameter("config", "", "Settings (YAML); empty: governor.yaml of the configuration folder.")
        self.governor = Governor(load_governor_config(path or None))
        self._levels: dict[str, tuple[float, int]] = {}
        self._status: tuple[float, PolicyStatus] | None = None
        self._asked, self._answer, self._trouble = 0.0, None, ""
        self.create_subscription(SmoothnessReport, f"{monitor}/report", self._on_report, 50)
        self.create_subscription(PolicyStatus, f"{policy}/status", self._on_status, 10)
        self._set = self.create_client(SetParameters, f"{policy}/set_parameters")
        self._stop = self.create_client(Trigger, f"{policy}/estop")
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a stopped simulation must not silence it
        self.create_timer(PERIOD, self._decide, clock=steady)
        self.create_timer(1.0, self._diagnose, clock=steady)

    def _parameter(self, name, default, description):
        return self.declare_parameter(name, default, ParameterDescriptor(description=description, read_only=True)).value

    def _on_report(self, message: SmoothnessReport) -> None:
        joints = [level for level in message.joint_level if level != SmoothnessReport.STALE]
        if message.level != SmoothnessReport.STALE:
            self._levels[message.source] = time.monotonic(), max(joints, default=message.level)

    def _on_status(self, message: PolicyStatus) -> None:
        self._status = time.monotonic(), message

    def _decide(self) -> None:
        now = time.monotonic()
        status = self._status[1] if self._status and now - self._status[0] <= STATUS_STALE else None
        stale = self.governor.config.reports_stale_after
        levels = {source: level for source, (arrival, level) in self._levels.items() if now - arrival <= stale}
        change = self.governor.update(MODES.get(status.mode, "") if status else "", levels, now)
        if change is not None:
            self.get_logger().warning(f"{change.step.name}: {change.reason}")
            self._asked = 0.0
        self._take_answer()
        if status is not None and self._answer is None and now - self._asked >= ASK_AGAIN:
            self._ask(status, now)

    def _ask(self, status: PolicyStatus, now: float) -> None:
        """Ask for what is wanted, where the policy's status tells something else."""
        step = self.governor.step
        if step == Step.ESTOP:
            if status.mode != PolicyStatus.ESTOPPED and self._stop.service_is_ready():
                self._asked, self._answer = now, self._stop.call_async(Trigger.Request())
            return
        wanted = step.name.lower()
        if status.command_mode not in ("", wanted) and self._set.service_is_ready():
            value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=wanted)
            request = SetParameters.Request(parameters=[Parameter(name="command_mode", value=value)])
            self._asked, self._answer = now, self._set.call_async(request)

    def _take_answer(self) -> None:
        if self._answer is None or not self._answer.done():
            if self._answer is not None and time.monotonic() - self._asked > 5.0 * ASK_AGAIN:
                self._answer, self._trouble = None, "the policy node does not answer"
            return
        answer = self._answer.result()
        self._answer = None
        refused = [result.reason for result in getattr(answer, "results", ()) if not result.successful]
        if refused and refused[0] != self._trouble:
            self.get_logger().error(f"{self.governor.step.name} refused: {refused[0]}")
        self._trouble = refused[0] if refused else ""

    def _diagnose(self) -> None:
        step, status = self.governor.step, self._status[1] if self._status else PolicyStatus()
        level = {Step.POLICY: DiagnosticStatus.OK, Step.SMOOTH: DiagnosticStatus.WARN}.get(step, DiagnosticStatus.ERROR)
        values = {"holds": self.governor.holds, "command_mode": status.command_mode,
                  "smoothed_share": f"{status.smoothed_share:.2f}", "smoothing_lag [s]": f"{status.smoothing_lag:.4f}"}
        entry = DiagnosticStatus(
            level=level, name=f"{self.get_fully_qualified_name().lstrip('/')}: governor",
            message=f"{step.name}{': ' if self._trouble else ''}{self._trouble}",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])
        message = DiagnosticArray(status=[entry])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args=None) -> int:
    return run(GovernorNode, args)


if __name__ == "__main__":
    sys.exit(main())
