# SPDX-License-Identifier: Apache-2.0
"""PyBullet arms, tasks and Gymnasium environments of QGF, and the node that stands in for a robot."""

import gymnasium

from qgf_sim.quiet import quiet_native_output

with quiet_native_output():
    import pybullet  # noqa: F401 - its banner, once and unseen

_ARMS = {"Panda": "panda", "iiwa": "iiwa", "UR5e": "ur5e"}
_TASKS = {"Reach": "reach", "ReachPose": "reach_pose", "Track": "track", "Hold": "hold"}

for _name, _task in _TASKS.items():
    for _arm, _robot in _ARMS.items():
        # Reach was registered under capitalised names first, which stay good.
        for _spelling in {_arm, _robot.capitalize()} if _task == "reach" else {_arm}:
            gymnasium.register(
                id=f"QGF/{_name}-{_spelling}-v0", entry_point="qgf_sim.env:ArmEnv",
                kwargs={"robot": _robot, "config": _task},
            )
