# SPDX-License-Identifier: Apache-2.0
"""The rqt plugin: a shell round the widget."""

from __future__ import annotations

from typing import Any

from rqt_gui_py.plugin import Plugin  # first: it brings the Qt binding that the widget then uses

from rqt_qgf.link_node import RosLink
from rqt_qgf.theme import DARK, LIGHT
from rqt_qgf.widget import Dashboard


class DashboardPlugin(Plugin):  # type: ignore[misc, unused-ignore]
    """The dashboard in rqt; theme and source are kept in the perspective."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.setObjectName("QgfDashboard")
        self._widget = Dashboard(RosLink(context.node))
        if context.serial_number() > 1:
            self._widget.setWindowTitle(f"{self._widget.windowTitle()} ({context.serial_number()})")
        context.add_widget(self._widget)

    def shutdown_plugin(self) -> None:
        """Let go of topics and timers."""
        self._widget.close_link()

    def save_settings(self, plugin_settings: Any, instance_settings: Any) -> None:
        """Keep what the user has chosen."""
        instance_settings.set_value("theme", self._widget.theme.name)

    def restore_settings(self, plugin_settings: Any, instance_settings: Any) -> None:
        """Take up what was kept."""
        theme = instance_settings.value("theme", "")
        if theme:
            self._widget.set_theme(DARK if theme == "dark" else LIGHT)
