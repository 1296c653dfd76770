# SPDX-License-Identifier: Apache-2.0
"""PyBullet arms, tasks and Gymnasium environments of QGF, and the node that stands in for a robot."""

import gymnasium

from qgf_sim.quiet import quiet_native_output

with quiet_native_output():
    import pybullet  # noqa: F401 - its banner, once and unseen

for _robot in ("panda", "iiwa", "ur5e"):
    gymnasium.register(
        id=f"QGF/Reach-{_robot.capitalize()}-v0", entry_point="qgf_sim.env:ReachEnv", kwargs={"robot": _robot}
    )
