# SPDX-License-Identifier: Apache-2.0
"""The campaign's faults: how each is injected and mended, and what the policy node declares to do."""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fault_injection.arm import ROBOT
from lifecycle_msgs.msg import Transition
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger

if TYPE_CHECKING:
    from faults import Campaign

GOAL_TIMEOUT = 5.0
"""Of the campaign's node [s]."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One row of the campaign."""

    name: str
    reaction: str
    """As declared: "hold" and go on by itself, "end" the activation, "latch", "refuse" a goal, "tell" and go on, or
    "none"."""
    within: float
    """The reaction shows within this time [s] after the injection takes effect."""
    words: str = ""
    """In the fault that the node tells."""
    lasts: float = 0.3
    inject: Callable[[Campaign], float] | None = None
    """Returns when it took effect (steady [s]); None: the arm does it under this name."""
    mend: Callable[[Campaign], None] | None = None
    simulated: bool = False
    """In a campaign whose time is that of /clock."""


def goal_at(x: float, y: float = 0.0, z: float = 0.4) -> Callable[[Campaign], float]:
    """Sends this goal."""

    def inject(campaign: Campaign) -> float:
        campaign.send_goal(x, y, z)
        return time.monotonic()

    return inject


def estop_by_topic(campaign: Campaign) -> float:
    campaign.estop_request.publish(Bool(data=True))
    return time.monotonic()


def estop_by_service(campaign: Campaign) -> float:
    began = time.monotonic()
    campaign.call(Trigger, "estop")
    return began


def rival_comes(campaign: Campaign) -> float:
    campaign.rival = campaign.node.create_publisher(Float64MultiArray, ROBOT.topics.velocity, 1)
    return time.monotonic()


def rival_goes(campaign: Campaign) -> None:
    campaign.node.destroy_publisher(campaign.rival)


def model_fails(campaign: Campaign) -> float:
    campaign.failing.touch()
    return time.monotonic()


def model_works(campaign: Campaign) -> None:
    campaign.failing.unlink()


def flip_a_bit(campaign: Campaign) -> float:
    data = bytearray(campaign.bundle.read_bytes())
    data[len(data) // 3] ^= 1
    campaign.bundle.write_bytes(data)
    return time.monotonic()


def flip_it_back(campaign: Campaign) -> None:
    """What was told is not forgotten: a person has to configure anew."""
    flip_a_bit(campaign)
    campaign.transition(Transition.TRANSITION_DEACTIVATE)
    campaign.until(lambda: campaign.transition(Transition.TRANSITION_CLEANUP), "the clean-up")
    campaign.until(lambda: campaign.transition(Transition.TRANSITION_CONFIGURE), "the configuration")
    campaign.bring_to_motion()


def kill_the_arm(campaign: Campaign) -> float:
    """SIGKILL: its topics vanish without a farewell. It takes effect with the last state that was sent: to kill a
    process takes the system its time, in which it may still send."""
    child = campaign.children["arm"]
    child.kill()
    while child.poll() is None:  # what is heard meanwhile is heard in time
        campaign.listen(0.002)
    campaign.listen(0.005)
    return time.monotonic() - (time.time() - campaign.state_stamp)


def revive_the_arm(campaign: Campaign) -> None:
    """Where it was, as a real one would be."""
    campaign.start_arm(campaign.joint_position)
    campaign.until(lambda: "joint" not in campaign.statuses[-1][1].fault, "the new arm heard")


def forget_the_goal(campaign: Campaign) -> float:
    campaign.send_goal(0.5, 0.1, 0.45)
    sent = time.monotonic()
    campaign.listen(GOAL_TIMEOUT - 0.5)
    return sent + GOAL_TIMEOUT


def starve(campaign: Campaign) -> float:
    """The node is stopped and let go in turn: most of its deadlines pass by."""
    began = time.monotonic()
    child = campaign.children["policy_node"]
    while time.monotonic() < began + 0.8:
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.025)
        child.send_signal(signal.SIGCONT)
        campaign.listen(0.012)
    return began


def pause(campaign: Campaign) -> float:
    """The node stands still for 2 s, and then finds the arm's latest states and its own last command in force."""
    began = time.monotonic()
    child = campaign.children["policy_node"]
    child.send_signal(signal.SIGSTOP)
    campaign.listen(2.0)
    child.send_signal(signal.SIGCONT)
    return began


FAULTS = (
    Fault("stale", "hold", 0.06, "ms old"),
    Fault("missing_joint", "hold", 0.06, "ms old"),
    Fault("stamps_back", "hold", 0.06, "ms old"),
    Fault("stamps_ahead", "hold", 0.03, "ahead of this machine's clock"),
    Fault("nan", "hold", 0.03, "not finite"),
    Fault("infinite_velocity", "hold", 0.03, "not finite"),
    Fault("named_twice", "hold", 0.03, "twice"),
    Fault("lengths", "hold", 0.03, "8 names, 8 positions, 7 velocities"),
    Fault("permute", "none", 0.4),
    Fault("protective_stop", "end", 1.5, "from where its commands should have brought it", lasts=2.0),
    Fault("non_finite_action", "hold", 0.05, "output is not finite", inject=goal_at(1.1)),
    Fault("model_exception", "hold", 0.05, "running the policy failed", inject=model_fails, mend=model_works),
    Fault("saturated_action", "end", 0.55, "for full speed", lasts=0.5, inject=goal_at(0.85)),
    Fault("non_finite_goal", "refuse", 0.2, "not three finite numbers", inject=goal_at(math.nan)),
    Fault("goal_outside", "refuse", 0.2, "outside the region", inject=goal_at(3.0)),
    Fault("estop_topic", "latch", 0.05, "emergency stop", lasts=0.6, inject=estop_by_topic),
    Fault("estop_service", "latch", 0.05, "emergency stop", lasts=0.6, inject=estop_by_service),
    Fault("second_commander", "end", 0.5, "somebody else commands", lasts=1.0, inject=rival_comes, mend=rival_goes),
    Fault("starved_node", "end", 1.2, "overrun or left out", lasts=1.5, inject=starve),
    Fault("paused_node", "end", 2.5, "activate again", lasts=2.5, inject=pause),
    Fault("arm_killed", "hold", 0.06, "ms old", inject=kill_the_arm, mend=revive_the_arm),
    Fault("stale_goal", "hold", 0.05, "the goal is", inject=forget_the_goal),
    Fault("bundle_changed", "tell", 2.0, lasts=1.0, inject=flip_a_bit, mend=flip_it_back),
    Fault("clock_step", "end", 0.1, "simulated time went back", simulated=True),
    Fault("clock_stops", "hold", 0.7, "/clock stands still", lasts=1.5, simulated=True),
)
"""Declared: what the node does, and by when [s]: its own periods, and 20 ms for transport and hearing."""


