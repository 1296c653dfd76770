# SPDX-License-Identifier: Apache-2.0
"""Brings a lifecycle node up when its process has started, and never activates it a second time.

launch_ros' own events are not used for it: they wait for ~/transition_event, a topic whose first message is lost where
discovery takes longer than the transition, and an activation that was refused is not tried again. Here every request is
a call that is answered, and the state is looked at before each.
"""

from __future__ import annotations

import threading
from typing import Any

from launch.actions import OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import IncludeLaunchDescription
from launch_ros.actions import LifecycleNode
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

from launch import LaunchContext, LaunchDescription
from qgf_core.errors import QgfError

ANSWER = 20.0
"""A node that takes longer to change its state [s] has died, or does not hear us: its state is looked at again."""
STATE_ANSWER = 2.0
"""The same for the question where it is [s]. A killed node is seen in the graph for twenty seconds more, and a request
that only it could have heard is lost."""
AGAIN = 1.0
"""Between two activations that are refused [s]; the policy node itself waits some seconds for the arm before."""
LOOK = 0.1
"""The end of the launch is noticed within this time [s]."""


def fail(reason: str) -> OpaqueFunction:
    """Ends the launch, with an exit code that is not 0, unless it ends already.

    An action that raises is the only way to that code: `launch` tells the reason in one line, takes everything down and
    exits with 1, where after its own Shutdown it exits with 0 whatever the reason was.
    """
    def raise_it(context: LaunchContext) -> None:
        if not context.is_shutdown:
            raise QgfError(reason)

    return OpaqueFunction(function=raise_it)


def required(event: Any, context: LaunchContext) -> list[Any]:
    """For a process's `on_exit`: its end ends the launch, and its failure is the launch's."""
    if context.is_shutdown:  # launch_ros fails at the second time
        return []
    name = event.process_name.rpartition("-")[0]
    if event.returncode != 0:
        return [fail(f"{name} has ended with code {event.returncode}, for what it says above")]
    return [Shutdown(reason=f"{name} has ended")]


def after(program: Any, actions: list[Any], reason: str) -> list[Any]:
    """The program, and the actions when it has succeeded; where it does not, the launch fails for the reason."""
    def ended(event: Any, context: LaunchContext) -> list[Any]:
        return actions if event.returncode == 0 else [fail(f"{reason}, as it says above")]

    return [RegisterEventHandler(OnProcessExit(target_action=program, on_exit=ended)), program]


class BringUp:
    """Configures a node whenever its process starts; activates it after the first start alone, where asked to.

    A node that was started again stays inactive: whatever ended it, a person looks before the arm moves.

    :param node: what to bring up. :param activate: whether to activate it too.
    """

    def __init__(self, node: LifecycleNode, activate: bool) -> None:
        self._node, self._activate, self._starts = node, activate, 0

    def handler(self) -> RegisterEventHandler:
        """What belongs into the launch description, before the node."""
        return RegisterEventHandler(OnProcessStart(target_action=self._node, on_start=self._started))

    def _started(self, event: Any, context: LaunchContext) -> None:
        activate, self._activate = self._activate, False
        self._starts += 1
        get_ros_node(context)  # made here, in the thread that it belongs to
        future = context.asyncio_loop.run_in_executor(None, self._bring_up, context, activate, self._starts)
        context.add_completion_future(future)

    def _bring_up(self, context: LaunchContext, activate: bool, start: int) -> None:
        def on() -> bool:
            return not context.is_shutdown and start == self._starts  # a node that was started since is another one

        wanted = Transition.TRANSITION_CONFIGURE
        while on():
            state = self._state(context)
            if state == State.PRIMARY_STATE_UNCONFIGURED and wanted == Transition.TRANSITION_CONFIGURE:
                if self._change(context, wanted) is False and on():
                    reason = f"{self._node.node_name} refuses its configuration, as it says above"
                    event = IncludeLaunchDescription(LaunchDescription([fail(reason)]))
                    context.asyncio_loop.call_soon_threadsafe(context.emit_event_sync, event)
                    return
            elif state == State.PRIMARY_STATE_INACTIVE and activate:
                wanted = Transition.TRANSITION_ACTIVATE
                if self._change(context, wanted):
                    return
                _wait(context, threading.Event(), AGAIN)
            elif state != State.PRIMARY_STATE_UNKNOWN:
                return  # it is where it shall be, or somebody else has taken over

    def _state(self, context: LaunchContext) -> int:
        answer = self._call(context, GetState, "get_state", GetState.Request(), STATE_ANSWER)
        return State.PRIMARY_STATE_UNKNOWN if answer is None else answer.current_state.id

    def _change(self, context: LaunchContext, transition: int) -> bool | None:
        """Whether the node has agreed; None where it does not answer."""
        request = ChangeState.Request(transition=Transition(id=transition))
        answer = self._call(context, ChangeState, "change_state", request, ANSWER)
        return None if answer is None else bool(answer.success)

    def _call(self, context: LaunchContext, kind: Any, name: str, request: Any, patience: float) -> Any:
        """The answer, or None where there is none in time [s] or the launch ends before."""
        ros = get_ros_node(context)
        client = ros.create_client(kind, f"{self._node.node_name}/{name}")
        try:
            while not client.service_is_ready():
                if _wait(context, threading.Event(), LOOK):
                    return None
            answered, future = threading.Event(), client.call_async(request)
            future.add_done_callback(lambda _: answered.set())
            _wait(context, answered, patience)
            return future.result() if answered.is_set() else None
        finally:
            if not context.is_shutdown:
                ros.destroy_client(client)


def _wait(context: LaunchContext, event: threading.Event, duration: float) -> bool:
    """Wait for an event, but for a while [s] at most. :returns: whether the launch ends."""
    left = duration
    while left > 0.0 and not context.is_shutdown and not event.wait(min(LOOK, left)):
        left -= LOOK
    return context.is_shutdown
