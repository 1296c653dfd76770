# SPDX-License-Identifier: Apache-2.0
"""Made-up arms without meshes, for tests: three joints without any shape, and six with boxes."""

from __future__ import annotations

_INERTIAL = ('<inertial><origin xyz="0 0 {half}"/><mass value="{mass}"/>'
             '<inertia ixx="{i}" ixy="0" ixz="0" iyy="{i}" iyz="0" izz="{i}"/></inertial>')
_VISUAL = '<visual><origin xyz="0 0 {half}"/><geometry><box size="0.06 0.06 {length}"/></geometry></visual>'


def urdf(name: str, joints: list[tuple[str, str, float, str]], visual: bool = False) -> str:
    """A serial arm: per joint its name, axis, the length of the link before it [m] and its <limit>'s attributes."""
    parts, parent, length = ['<link name="base"/>'], "base", 0.1
    for i, (joint, axis, before, limit) in enumerate(joints):
        length = joints[i + 1][2] if i + 1 < len(joints) else 0.1
        shape = {"half": length / 2, "length": length, "mass": 1.0 / (1 + i), "i": 0.01 / (1 + i)}
        body = _INERTIAL.format(**shape) + (_VISUAL.format(**shape) if visual else "")
        parts.append(f'<link name="link_{i + 1}">{body}</link>'
                     f'<joint name="{joint}" type="revolute"><origin xyz="0 0 {before}"/><parent link="{parent}"/>'
                     f'<child link="link_{i + 1}"/><axis xyz="{axis}"/><limit {limit}/></joint>')
        parent = f"link_{i + 1}"
    parts.append(f'<link name="tip"/><joint name="tip_mount" type="fixed"><origin xyz="0 0 {length}"/>'
                 f'<parent link="{parent}"/><child link="tip"/></joint>')
    return f'<robot name="{name}">{"".join(parts)}</robot>'


_LIMIT = 'lower="-2.5" upper="2.5" velocity="2.0" effort="{effort}"'
THREE_JOINTS = urdf("three", [("turn", "0 0 1", 0.2, _LIMIT.format(effort=40)),
                              ("lift", "0 1 0", 0.1, _LIMIT.format(effort=40)),
                              ("bend", "0 1 0", 0.3, _LIMIT.format(effort=20))])
SIX_JOINTS = urdf("six", [("j1", "0 0 1", 0.2, _LIMIT.format(effort=80)),
                          ("j2", "0 1 0", 0.1, _LIMIT.format(effort=80)),
                          ("j3", "0 1 0", 0.3, _LIMIT.format(effort=60)),
                          ("j4", "0 0 1", 0.25, _LIMIT.format(effort=20)),
                          ("j5", "0 1 0", 0.1, _LIMIT.format(effort=20)),
                          ("j6", "0 0 1", 0.1, _LIMIT.format(effort=10))],
                  visual=True)
