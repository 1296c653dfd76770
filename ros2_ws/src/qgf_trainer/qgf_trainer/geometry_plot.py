# SPDX-License-Identifier: Apache-2.0
"""Drawing the action-gradient field of several critics over one plane, on the same axes and colours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from qgf_core.errors import QgfError
from qgf_trainer.geometry import Slice, Value, field_on

_FORMATS = ("png", "svg", "pdf")


def draw_field(critics: Sequence[tuple[str, Value]], plane: Slice, path: Path, size: int = 50) -> bytes:
    """A row of surfaces dQ/da_i over (s_j, a_i), one per critic, as the bytes of a picture.

    :param critics: name and value of each.
    :param path: tells the format by its ending.
    :raises QgfError: another format.
    """
    form = path.suffix.lstrip(".").lower()
    if form not in _FORMATS:
        raise QgfError(f"{path}: a picture is one of {', '.join('.' + f for f in _FORMATS)}; choose such an ending")
    fields = [field_on(value, plane, size) for _, value in critics]
    low = min(float(gradient.min()) for *_, gradient in fields)
    high = max(float(gradient.max()) for *_, gradient in fields)
    edge = max(abs(low), abs(high), 1e-9)
    norm = TwoSlopeNorm(0.0, -edge, edge)  # white is where the actor has nothing to climb
    figure = Figure(figsize=(4.6 * len(critics) + 1.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = []
    for index, ((name, _), (states, actions, gradient)) in enumerate(zip(critics, fields, strict=True)):
        axis = figure.add_subplot(1, len(critics), index + 1, projection="3d")
        s, a = states[:, None].expand(size, size).numpy(), actions[None].expand(size, size).numpy()
        surface = axis.plot_surface(s, a, gradient.numpy(), cmap="RdBu_r", norm=norm, rcount=size, ccount=size)
        if float(gradient.min()) < 0.0 < float(gradient.max()):  # the optimum, on the surface and on the floor
            axis.contour(s, a, gradient.numpy(), levels=[0.0], colors="black", linewidths=1.5)
            axis.contour(s, a, gradient.numpy(), levels=[0.0], colors="black", linewidths=1.0, offset=low)
        axis.set_zlim(low, high)
        axis.locator_params(nbins=5)
        axis.set_title(name)
        axis.set_xlabel(f"observation {plane.state_index}")
        axis.set_ylabel(f"action {plane.action_index}")
        axis.set_zlabel(f"dQ / da_{plane.action_index}")
        axis.view_init(elev=26, azim=-120)
        axis.set_box_aspect(None, zoom=0.85)
        axes.append(axis)
    figure.colorbar(surface, ax=axes, shrink=0.7, pad=0.06, label="action gradient (black line: zero)")
    stream = io.BytesIO()
    figure.savefig(stream, format=form, dpi=120)
    return stream.getvalue()
