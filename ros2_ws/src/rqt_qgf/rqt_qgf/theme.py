# SPDX-License-Identifier: Apache-2.0
"""Colours and signs. Every level has a word and a shape of its own; the hues are those of Okabe and Ito (2008), which
people with any common colour blindness tell apart."""

from __future__ import annotations

from dataclasses import dataclass

from rqt_qgf.model import Level

SIGNS = {Level.OK: "●", Level.WARN: "▲", Level.ERROR: "■", Level.STALE: "○"}
WORDS = {Level.OK: "ok", Level.WARN: "warn", Level.ERROR: "ERROR", Level.STALE: "stale"}


@dataclass(frozen=True)
class Theme:
    """Colours as #rrggbb."""

    name: str
    page: str
    card: str
    ink: str
    muted: str
    line: str
    hover: str
    live: str
    response: str
    baseline: str
    peak: str
    ok: str
    warn: str
    error: str
    stale: str
    estop: str
    on_estop: str = "#ffffff"

    def level(self, level: Level) -> str:
        """The colour of a level."""
        return {Level.OK: self.ok, Level.WARN: self.warn, Level.ERROR: self.error, Level.STALE: self.stale}[level]

    def tint(self, level: Level) -> str:
        """The same as the background of a banner: a seventh of it on the card."""
        return mix(self.level(level), self.card, 0.14)

    def style_sheet(self) -> str:
        """For the whole widget."""
        return f"""
        #dashboard {{ background: {self.page}; }}
        #dashboard QWidget {{ color: {self.ink}; font-size: 13px; }}
        #dashboard QFrame#card {{ background: {self.card}; border: 1px solid {self.line}; border-radius: 8px; }}
        #dashboard QLabel#title {{ font-size: 12px; font-weight: 600; color: {self.muted}; }}
        #dashboard QLabel#muted {{ color: {self.muted}; }}
        #dashboard QLabel#headline {{ font-size: 22px; font-weight: 700; }}
        #dashboard QTableWidget {{ background: {self.card}; border: none; gridline-color: {self.line};
            selection-background-color: {self.hover}; selection-color: {self.ink}; outline: none; }}
        #dashboard QTableWidget::item {{ padding: 0 8px; }}
        #dashboard QTableWidget QLabel {{ font-weight: 600; padding: 0 8px; }}
        #dashboard QScrollArea, #dashboard QScrollArea > QWidget > QWidget {{ background: {self.card}; }}
        #dashboard QHeaderView::section {{ background: {self.card}; color: {self.muted}; border: none;
            border-bottom: 1px solid {self.line}; padding: 4px 8px; font-size: 12px; }}
        #dashboard QPushButton, #dashboard QComboBox {{ background: {self.card}; border: 1px solid {self.line};
            border-radius: 6px; padding: 5px 11px; min-height: 18px; }}
        #dashboard QPushButton:hover, #dashboard QComboBox:hover {{ background: {self.hover}; }}
        #dashboard QPushButton:focus, #dashboard QComboBox:focus {{ border-color: {self.live}; }}
        #dashboard QPushButton:disabled {{ color: {self.stale}; background: {self.page}; }}
        #dashboard QPushButton:checked {{ background: {self.live}; color: {self.card}; border-color: {self.live}; }}
        #dashboard QComboBox {{ padding-right: 4px; }}
        #dashboard QComboBox::drop-down {{ border: none; width: 20px; }}
        #dashboard QComboBox::down-arrow {{ image: none; border-left: 4px solid {self.card};
            border-right: 4px solid {self.card}; border-top: 5px solid {self.muted}; width: 0; height: 0; }}
        #dashboard QComboBox QAbstractItemView {{ background: {self.card}; selection-background-color: {self.hover};
            selection-color: {self.ink}; }}
        #dashboard QPushButton#estop {{ background: {self.estop}; color: {self.on_estop}; font-weight: 700;
            font-size: 16px; padding: 9px 22px; border: 2px solid {self.estop}; }}
        #dashboard QPushButton#estop:hover, #dashboard QPushButton#estop:focus {{ border-color: {self.ink}; }}
        #dashboard QSplitter::handle {{ background: {self.page}; }}
        """


def mix(colour: str, other: str, share: float) -> str:
    """`share` (0..1) of a colour on another one."""
    parts = [(int(colour[i:i + 2], 16), int(other[i:i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * a + (1.0 - share) * b):02x}" for a, b in parts)


LIGHT = Theme("light", page="#f3f5f7", card="#ffffff", ink="#1f2328", muted="#59636e", line="#d9dee3", hover="#e3edf7",
              live="#0072b2", response="#b84f00", baseline="#6e7781", peak="#8f3f71", ok="#006b4f", warn="#8a5200",
              error="#b3261e", stale="#59636e", estop="#b3261e")
DARK = Theme("dark", page="#0d1117", card="#161b22", ink="#e6edf3", muted="#9aa4ae", line="#30363d", hover="#1f3044",
             live="#56b4e9", response="#f0a35c", baseline="#9aa4ae", peak="#d99bc2", ok="#2fbf95", warn="#f0b429",
             error="#ff7b72", stale="#9aa4ae", estop="#c4312a")
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}
