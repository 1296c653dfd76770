# SPDX-License-Identifier: Apache-2.0
"""PyBullet arms, tasks and Gymnasium environments of QGF, and the node that stands in for a robot."""

import gymnasium

for _robot in ("panda", "iiwa"):
    gymnasium.register(id=f"QGF/Reach-{_robot.capitalize()}-v0", entry_point="qgf_sim.env:ReachEnv", kwargs={"robot": _robot})
