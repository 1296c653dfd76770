# SPDX-License-Identifier: Apache-2.0
"""The parameters at a node: declared with their descriptions, and guarded while the node runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from qgf_core.errors import ConfigError
from qgf_policy.parameters import PARAMETERS, ParameterSpec, PolicyParameters, from_values, judge_changes


def descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    """The ROS description of a parameter. Numbers take integers too, hence the dynamic type; `coerce` checks."""
    number = isinstance(spec.default, float)
    message = ParameterDescriptor(
        name=spec.name, description=spec.meaning, read_only=spec.counts == "start", dynamic_typing=number
    )
    if spec.choices:
        message.additional_constraints = "one of: " + ", ".join(choice or "''" for choice in spec.choices)
    if spec.minimum is not None and spec.maximum is not None:
        if number:
            message.floating_point_range = [FloatingPointRange(from_value=spec.minimum, to_value=spec.maximum)]
        else:
            message.integer_range = [
                IntegerRange(from_value=int(spec.minimum), to_value=int(spec.maximum), step=1)
            ]
    return message


class NodeParameters:
    """Declares PARAMETERS at a node and refuses what cannot count now.

    :param node: whose parameters they are.
    :param label: the node's lifecycle state.
    :param changed: called with all values after a change.
    :raises ConfigError: a value given at the start will not do.
    """

    def __init__(
        self, node: Node, label: Callable[[], str], changed: Callable[[PolicyParameters], None]
    ) -> None:
        self._node, self._label, self._changed = node, label, changed
        self._loaded = ""
        for spec in PARAMETERS:
            try:
                node.declare_parameter(spec.name, spec.default, descriptor(spec))
            except ParameterException as error:
                raise ConfigError("policy_node", spec.name, str(error), "give a value of its type") from error
        self.read()
        node.add_on_set_parameters_callback(self._judge)
        node.add_post_set_parameters_callback(lambda changes: self._changed(self.read()))

    def read(self) -> PolicyParameters:
        """All values. :raises ConfigError: one will not do."""
        return from_values({spec.name: self._node.get_parameter(spec.name).value for spec in PARAMETERS})

    def tell_bundle(self, path: Path) -> None:
        """Let the parameter say what ~/load_policy has loaded."""
        self._loaded = str(path)
        self._node.set_parameters([Parameter("bundle", value=self._loaded)])
        self._loaded = ""

    def _judge(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        values = {change.name: change.value for change in changes}
        if self._loaded and values == {"bundle": self._loaded}:
            return SetParametersResult(successful=True)
        reason = judge_changes(values, self._label())
        try:
            if not reason:
                from_values({spec.name: self._node.get_parameter(spec.name).value for spec in PARAMETERS} | values)
        except ConfigError as error:
            reason = str(error)
        return SetParametersResult(successful=not reason, reason=reason)
