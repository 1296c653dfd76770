# SPDX-License-Identifier: Apache-2.0
"""The runner between a policy and a motor: no ROS, no thread, no clock of its own; stepped with a state and a time.

It holds the safety rules. The arm gets a command only from fresh, complete and finite state; everything passes the
limiter that training used; in doubt the desired velocity is zero, which the limiter turns into a jerk-limited stop.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qgf_core.errors import ConfigError, StateError
from qgf_policy.blend import minimum_jerk
from qgf_policy.command_filter import CommandFilter
from qgf_policy.goals import Goals
from qgf_policy.joint_state import JointState
from qgf_policy.pilot import Pilot, Policy
from qgf_policy.rates import command_rate, interpolator_of, limiter_of
from qgf_policy.references import ReferenceMessage
from qgf_policy.settings import RunnerSettings
from qgf_policy.status import Command, Counters, Event, Mode, RunnerStatus
from qgf_policy.supervision import Supervisor
from qgf_policy.trajectory_stream import horizon_of
from qgf_policy.watch import StateWatch

Vector = NDArray[np.float64]

REST_SPEED = 0.1
"""An arm slower than this in every joint starts from rest [rad/s]: five sigma of the usual velocity noise."""
SETTLE_TIME = 0.1
"""How long a halt goes on repeating its last command [s], so that one lost message does not leave the arm moving."""


class PolicyRunner:
    """Steps a policy with limits, ramps, holds and the latched emergency stop.

    :param bundle: the policy and its manifest.
    :param settings: how to run it.
    :param timer: [ns], times the stages `infer` and `limit`.
    :raises ConfigError: a command interface or rate that cannot be used.
    """

    def __init__(
        self, bundle: Policy, settings: RunnerSettings, timer: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        manifest = bundle.manifest
        self.manifest, self.settings = manifest, settings
        self._robot, self._timer = manifest.robot, timer
        self._pilot, self._swapped = Pilot(bundle), 0
        self._outgoing: Pilot | None = None
        rate, self.substeps = command_rate(manifest, settings)
        self.control_period = round(1e9 / manifest.control_rate)
        self.command_period = round(1e9 / rate)
        self.state_limit = round(
            (settings.state_timeout or settings.stale_periods / manifest.control_rate) * 1e9
        )
        self._closed_loop = settings.command_interface == "velocity"
        self._limiter = limiter_of(manifest, rate, self._closed_loop)
        self._interpolator = interpolator_of(manifest, self.substeps)
        self._supervisor = Supervisor(
            self._robot,
            manifest.kinematics(),
            period=1.0 / rate,
            control_period=1.0 / manifest.control_rate,
            forgetting=self._closed_loop,
            tracking_limit=settings.tracking_limit,
            saturation_time=settings.saturation_time,
            space=settings.space,
            home_limit=settings.home_limit,
            going_on=1e-9 * horizon_of(self.command_period) * (settings.command_interface == "joint_trajectory"),
        )
        self._watch = StateWatch(self._robot, self.state_limit, settings.watch_time)
        self._zero = np.zeros(len(self._robot.joints))
        self.filter = CommandFilter(len(self._zero), rate, settings.governor_lag)
        self._settle = math.ceil(SETTLE_TIME * rate)
        self._ramp = settings.ramp_duration * 1e9
        self.speed_scale = settings.speed_scale
        self.counters = Counters()
        self.events: deque[Event] = deque(maxlen=64)
        self.infer_time = self.limit_time = 0
        """Durations of the stages in the last step [ns]."""
        self.goal_refusal = ""
        """Why the last goal or reference was refused; empty once one was accepted."""
        self._goals = Goals(manifest, settings.goal_timeout)
        self._commanding = self._leaving = self._estopped = False
        self._mode, self._kind, self._fault = Mode.INACTIVE, "", ""
        self._estop_reason = ""
        self._fresh = True  # the next inference starts anew: no history, previous_action 0, a new ramp
        self._ramp_start = self._next_inference = 0
        self._sequence, self._cycles, self._at_rest_for = 0, 0, 0
        self._state_age = 0.0
        self._counted: set[str] = set()

    # ------------------------------------------------------------------------------------------------ requests

    @property
    def commanding(self) -> bool:
        """Whether steps return commands: from activation until a halt has come to rest."""
        return self._commanding

    @property
    def estopped(self) -> bool:
        """Whether an emergency stop is latched."""
        return self._estopped

    def judge_activation(self, state: JointState, now: int) -> StateError | None:
        """Why `activate` would refuse, or None."""
        if self._estopped:
            text = f"an emergency stop is latched ({self._estop_reason}); call ~/reset_estop first"
            return StateError("estop", text)
        if self._commanding:
            return StateError("busy", "the arm is still being brought to rest; wait for mode INACTIVE")
        fault = self._judge_state(state, now) or self._supervisor.judge_start(state.position, state.velocity)
        return fault or self._watch.judge(now)

    def activate(self, state: JointState, now: int) -> None:
        """Begin to command, from where the arm is.

        :param now: [ns] on the clock of `state.sampled`.
        :raises StateError: why not: emergency stop, still halting, or a state that is not fresh, complete, finite and
            within the position and velocity limits.
        """
        fault = self.judge_activation(state, now)
        if fault is not None:
            raise fault
        moving = bool(np.any(np.abs(state.velocity) > REST_SPEED))
        self._limiter.reset(state.position, state.velocity if moving else None)
        self._supervisor.reset(state.position)
        self._commanding, self._leaving, self._fresh = True, False, True
        self._sequence = self._cycles = self._at_rest_for = 0
        self._next_inference = now
        self._counted.clear()
        self._watch.restart()
        self._set(Mode.RAMPING, "", "activated")

    def deactivate(self) -> None:
        """Bring the arm to rest within its limits; then steps return no more commands, and the goal is forgotten."""
        self._goals.forget()
        if self._commanding:
            self._leaving = True
            self._at_rest_for = 0
            if not self._estopped:
                self._set(Mode.HALTING, "", "being brought to rest")
        elif not self._estopped and self._mode != Mode.INACTIVE:  # why an activation was ended stays told
            self._set(Mode.INACTIVE, "", "")

    def abort(self, fault: StateError) -> None:
        """Bring the arm to rest within its limits and end the activation: a person or a program has to look, and to
        activate anew from where the arm then is. Counted; harmless while nothing is commanded."""
        if not self._commanding or self._leaving or self._estopped:
            return
        self.counters.count_fault(fault.kind)
        self._goals.forget()
        self._leaving, self._at_rest_for = True, 0
        self._set(Mode.HALTING, fault.kind, f"{fault}; activate again once it is mended")

    def replace(self, bundle: Policy, now: int) -> Policy:
        """Swap the policy between two periods, while it commands too: for `ramp_duration` the command is blended from
        the old policy's wish to the new one's (minimum jerk), both being asked.

        :param bundle: verified and warmed up. :returns: the policy that goes.
        :raises ConfigError: not for this arm, its limits or this control rate.
        """
        old, new = self.manifest, bundle.manifest
        for name, same in (
            ("robot", old.robot == new.robot),
            ("control_rate", old.control_rate == new.control_rate),
            ("command_rate", old.command_rate == new.command_rate),
            ("kind of action", old.action.kind == new.action.kind),
            ("kind of goal", old.aim == new.aim),
        ):
            if not same:
                problem = f"its {name} is not that of the running policy"
                raise ConfigError("policy_node", "load_policy", problem, "deactivate first, then load it")
        outgoing, self._pilot, self.manifest = self._pilot, Pilot(bundle), new
        self._outgoing, self._swapped = (None if self._fresh else outgoing), now
        self._goals.follow(new)
        return outgoing.policy

    def estop(self, reason: str) -> None:
        """Bring the arm to rest and keep it there; only `reset_estop` and a new activation end that."""
        if self._estopped:
            return
        self.counters.estops += 1
        self._estopped, self._estop_reason = True, reason
        self._goals.forget()
        self._set(Mode.ESTOPPED, "estop", f"emergency stop: {reason}; call ~/reset_estop, then activate")

    def reset_estop(self) -> None:
        """Unlatch. The runner then ends as after `deactivate`. :raises StateError: not latched, or still moving."""
        if not self._estopped:
            raise StateError("estop", "no emergency stop is latched")
        if self._commanding and not self._limiter.at_rest:
            raise StateError("estop", "the arm is still being brought to rest; try again")
        self._estopped = False
        self.deactivate()

    def set_goal(
        self,
        position: ArrayLike,
        frame: str,
        stamp: int,
        now: int,
        unusable: str = "",
        orientation: ArrayLike | None = None,
    ) -> None:
        """Where the tool shall go.

        :param position: (3,) [m] in `frame`, which must be the robot's base frame.
        :param stamp: of the goal's message [ns].
        :param unusable: why it must be refused.
        :param orientation: quaternion (4,) x y z w in `frame`; for a policy that is told a pose, others ignore it.
        :raises StateError: refused (and counted); the goal before stays.
        """
        problem = "an emergency stop is latched"
        if not self._estopped:
            problem = self._goals.set_goal(position, orientation, frame, stamp, now, unusable)
        self._taken("goal", problem)

    def set_reference(self, message: ReferenceMessage, state: JointState, now: int) -> None:
        """Where the joints shall be over time, from `now` on; takes the place of the reference before.

        :param state: the arm's, from where it goes to a first point that is not due yet.
        :raises StateError: refused (and counted): not for these joints, not finite, times that do not increase, ended
            already, beyond the limits, faster than trained on; the reference before stays.
        """
        problem = "an emergency stop is latched"
        if not self._estopped:
            problem = self._goals.set_reference(message, state, now)
        self._taken("reference", problem)

    def _taken(self, what: str, problem: str) -> None:
        self.goal_refusal = f"{what} refused: {problem}" if problem else ""
        if problem:
            self.counters.count_fault("rejected_goal")
            self.events.append(Event(self._mode, "rejected_goal", self.goal_refusal))
            raise StateError("rejected_goal", self.goal_refusal)

    # ------------------------------------------------------------------------------------------------ one period

    def step(self, state: JointState, now: int) -> tuple[Command | None, RunnerStatus]:
        """`advance`, and the status after it."""
        return self.advance(state, now), self.status()

    def advance(self, state: JointState, now: int) -> Command | None:
        """One command period.

        :param state: newest joint state.
        :param now: [ns] on the clock of `state.sampled`; never goes back.
        :returns: the command to send, None while inactive.
        """
        self.infer_time = self.limit_time = 0
        for refusal in state.refusals:
            self.counters.count_fault(refusal.kind)
        if not self._commanding:
            self._watch.add(state, now)
            return None
        inference = self._begins_control_period(now)
        action: NDArray[np.float32] | None = None
        observation: NDArray[np.float32] | None = None
        if not (self._estopped or self._leaving):
            observation, action = self._decide(state, now, inference)
        began = self._timer()
        values = self._limit(state, now, inference)
        self.limit_time = self._timer() - began
        command = Command(
            values,
            inference,
            self._sequence,
            action,
            observation,
            state.stamp,
            self._goals.stamp,
            self._reason(),
        )
        if inference:
            self._sequence += 1
            self._cycles += 1
        self._end_halt()
        return command

    def _decide(
        self, state: JointState, now: int, inference: bool
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Hold, abort, or ask the policy; returns observation and action where it was asked."""
        fault = self._judge_state(state, now)
        if fault is None:
            parted = self._supervisor.judge_motion(state.position, self._limiter.velocity)
            if parted is not None:
                self.abort(parted)
                return None, None
            fault = self.filter.judge() or self._goals.judge(now)
        if fault is not None:
            self._hold(fault, counted=fault in state.refusals)
            return None, None
        if not inference:
            return None, None
        began = self._timer()
        asked = self._infer(state, now)
        self.infer_time = self._timer() - began
        return asked

    def halt_step(self) -> tuple[Vector, bool]:
        """The next values of a stop without any state or policy, and whether the arm is at rest: the last resort."""
        limited = self._limiter.step(self._zero)
        at_rest = self._limiter.at_rest
        return self._values(limited.position, limited.velocity, at_rest), at_rest

    def status(self) -> RunnerStatus:
        """Mode, fault and counters now."""
        return RunnerStatus(self._mode, self._fault, self.counters, self._cycles, self._state_age, self.filter.state)

    def _begins_control_period(self, now: int) -> bool:
        if self.substeps > 1 and now < self._next_inference - self.command_period // 2:
            return False
        # Periods whose time has passed are left out: the grid stays where activation put it.
        missed = max(0, (now - self._next_inference + self.command_period // 2) // self.control_period)
        self._next_inference += (missed + 1) * self.control_period
        self._counted.clear()
        return True

    def _judge_state(self, state: JointState, now: int) -> StateError | None:
        """What forbids acting upon a state, or None."""
        if state.refusals:
            return state.refusals[0]
        if state.missing:
            return StateError("incomplete_state", f"no state was received yet of {', '.join(state.missing)}")
        oldest = int(state.sampled.argmin())
        age = now - int(state.sampled[oldest])
        if age > self.state_limit:
            return StateError(
                "stale_state",
                f"the state of joint '{self._robot.joint_names[oldest]}' is {1e-6 * age:.1f} ms old, "
                f"allowed are {1e-6 * self.state_limit:.1f} ms",
            )
        # A finite sum has finite parts only; each is asked where it is not, which takes longer.
        if not math.isfinite(sum(state.position.tolist()) + sum(state.velocity.tolist())) and not (
            np.isfinite(state.position).all() and np.isfinite(state.velocity).all()
        ):
            return StateError("non_finite_state", "the joint state holds a number that is not finite")
        self._state_age = 1e-9 * max(age, 0)
        return None

    def _hold(self, fault: StateError, counted: bool = False) -> None:
        """Desired velocity 0 from here on; counted once a control period unless it was `counted` already."""
        self._fresh = True
        if not counted and fault.kind not in self._counted:
            self._counted.add(fault.kind)
            self.counters.count_fault(fault.kind)
        self._set(Mode.HOLDING, fault.kind, str(fault))

    def _infer(self, state: JointState, now: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Ask the policy; returns observation and action."""
        if self._fresh:
            self._pilot.restart()
            self.filter.restart()
            if self._interpolator is not None:
                self._interpolator.restart(self._limiter.velocity)
            self._outgoing = None
            self._ramp_start = now
        base = state.position if self._closed_loop else self._limiter.position
        observation = self._pilot.observe(state, self._goals, now)
        try:
            action = self._pilot.act(observation, base, self._limiter.velocity)
        except StateError as error:
            self._hold(error)
            return observation, None
        self._fresh = False
        if self._mode == Mode.HOLDING or self._kind:
            self._set(Mode.RAMPING, "", "the policy commands again")
        if self._outgoing is not None:
            try:
                seen = self._outgoing.observe(state, self._goals, now)
                self._outgoing.act(seen, base, self._limiter.velocity)
            except StateError:
                self._outgoing = None  # the limiter smooths what the blend now cannot
        stuck = self._supervisor.judge_action(action)
        if stuck is not None:
            self.abort(stuck)
        return observation, action

    def _wanted(self, now: int, inference: bool) -> Vector:
        """Joint velocity (n,) [rad/s] that is asked for at `now`: the policy's, blended after a swap and a start."""
        wanted = self._pilot.wanted
        if self._outgoing is not None:
            share = minimum_jerk(now - self._swapped, self._ramp)
            wanted = self._outgoing.wanted + share * (wanted - self._outgoing.wanted)
            if share >= 1.0:
                self._outgoing = None
        if self._interpolator is not None:
            if inference:
                self._interpolator.aim(wanted)
            wanted = self._interpolator.step()
        share = minimum_jerk(now - self._ramp_start, self._ramp)
        if share >= 1.0 and self._mode == Mode.RAMPING:
            self._set(Mode.ACTIVE, "", "the policy commands")
        return self.filter.step(wanted * (self.speed_scale * share))

    def _limit(self, state: JointState, now: int, inference: bool) -> Vector:
        """The next values to send, in the driver's signs."""
        if self._fresh or self._estopped or self._leaving:
            # The measured position may be stale, and braking needs none: the limiter goes on from its own, which is the
            # last one trusted plus what was commanded since.
            limited = self._limiter.step(self._zero)
            self._supervisor.commanded(limited.velocity, None)
            return self._values(limited.position, limited.velocity, self._limiter.at_rest)
        limited = self._limiter.step(self._wanted(now, inference), state.position if self._closed_loop else None)
        self._supervisor.commanded(limited.velocity, state.position)
        if inference and limited.limited:
            self.counters.limited_commands += 1
        return self._values(limited.position, limited.velocity, False)

    def _values(self, position: Vector, velocity: Vector, at_rest: bool) -> Vector:
        if not self._closed_loop:
            return np.asarray(position * self._robot.signs)
        return self._zero.copy() if at_rest else np.asarray(velocity * self._robot.signs)

    def _end_halt(self) -> None:
        """End a halt once the arm has been at rest for SETTLE_TIME."""
        if not self._leaving:
            return
        self._at_rest_for = self._at_rest_for + 1 if self._limiter.at_rest else 0
        if self._at_rest_for > self._settle:
            self._commanding = self._leaving = False
            if not self._estopped:
                text = self._fault if self._kind else "at rest; nothing is commanded any more"
                self._set(Mode.INACTIVE, self._kind, text)

    def _reason(self) -> str:
        if self._mode == Mode.ACTIVE:
            return self.filter.reason
        texts = {Mode.RAMPING: "ramping in", Mode.HALTING: "being brought to rest"}
        return self._fault or texts.get(self._mode, "")

    def _set(self, mode: Mode, kind: str, text: str) -> None:
        if (mode, kind) != (self._mode, self._kind):
            self.events.append(Event(mode, kind, text))
        self._mode, self._kind = mode, kind
        self._fault = text if kind else ""
