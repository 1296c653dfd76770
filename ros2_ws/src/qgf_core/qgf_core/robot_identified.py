# SPDX-License-Identifier: Apache-2.0
"""What was measured of an arm's drives and encoders, as it stands in the arm's YAML."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics

Interval = tuple[float, float, float]
"""Estimate, and the ends of its 95 % confidence interval."""


@dataclasses.dataclass(frozen=True)
class IdentifiedJoint:
    """One joint's drive and encoder: estimate, lower and upper end of the 95 % confidence interval."""

    delay: Interval
    """From a command to its effect [s]."""
    time_constant: Interval
    """First-order lag, or 1/omega of a servo of second order [s]."""
    damping_ratio: Interval = (0.0, 0.0, 0.0)
    """Of a servo of second order; 0: it is of first order."""
    gain: Interval = (1.0, 1.0, 1.0)
    """Speed reached by speed asked for, beyond the dry friction; viscous friction is in it."""
    coulomb: Interval = (0.0, 0.0, 0.0)
    """Dry friction that a velocity servo of 50 N m s/rad sees [N m]: speed lost times 50."""
    velocity_filter: Interval = (0.0, 0.0, 0.0)
    """Lag of the velocities that the driver tells behind its positions [s]."""
    position_noise: Interval = (0.0, 0.0, 0.0)
    """Standard deviation [rad]."""
    velocity_noise: Interval = (0.0, 0.0, 0.0)
    """Standard deviation [rad/s]."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, low, high = getattr(self, field.name)
            if not (all(map(math.isfinite, (value, low, high))) and low <= value <= high and value >= 0):
                raise ValueError(f"{field.name}: {[value, low, high]} must be [estimate, lower, upper], not negative")


@dataclasses.dataclass(frozen=True)
class IdentifiedSpec:
    """The block `identified:` of an arm's YAML."""

    measured: str
    """When and how."""
    joints: dict[str, IdentifiedJoint]

    def __post_init__(self) -> None:
        if not self.joints:
            raise ValueError("identified: no joint is given")

    def typical(self, field: str) -> float:
        """Median of a field's estimates over the joints."""
        return statistics.median(getattr(joint, field)[0] for joint in self.joints.values())

    def drive(self) -> dict[str, float]:
        """The fields of DriveSpec that were measured. Friction that may be none is none."""
        sticks = statistics.median(joint.coulomb[1] for joint in self.joints.values()) > 0.0
        # A servo is of the order that most joints show; a mean of both orders would be neither.
        second = [joint for joint in self.joints.values() if joint.damping_ratio[0] > 0.0]
        same = second if 2 * len(second) > len(self.joints) else [j for j in self.joints.values() if j not in second]
        return {
            "latency": statistics.median(joint.delay[0] for joint in same),
            "time_constant": statistics.median(joint.time_constant[0] for joint in same),
            "damping_ratio": statistics.median(joint.damping_ratio[0] for joint in same),
            "gain": self.typical("gain"),
            "coulomb": self.typical("coulomb") if sticks else 0.0,
        }


def with_identified(text: str, identified: IdentifiedSpec) -> str:
    """An arm's YAML with its block `identified:` replaced or added; all other lines stay as they are."""
    lines = ["identified:  # by ./qgf identify: [estimate, lower, upper end of the 95 % interval]",
             f'  measured: "{identified.measured}"', "  joints:"]
    for name, joint in identified.joints.items():
        fields = (f"{field.name}: [{', '.join(f'{number:.6g}' for number in getattr(joint, field.name))}]"
                  for field in dataclasses.fields(joint))
        lines.append(f"    {name}: {{{', '.join(fields)}}}")
    block = "\n".join(lines) + "\n"
    text = text if text.endswith("\n") else text + "\n"
    old = re.compile(r"^identified:.*\n(?:[ \t]+.*\n)*", re.MULTILINE)
    return old.sub(lambda _: block, text, count=1) if old.search(text) else text + block
