# SPDX-License-Identifier: Apache-2.0
"""Parts that the dashboard is put together from: the table of joints, framed areas, labels."""

from __future__ import annotations

import math
from typing import Any

from pyqtgraph.Qt import QtCore, QtWidgets

from rqt_qgf.model import View
from rqt_qgf.theme import SIGNS, WORDS, Theme

RIGHT = QtCore.Qt.AlignmentFlag.AlignRight | QtCore.Qt.AlignmentFlag.AlignVCenter
LEFT = QtCore.Qt.AlignmentFlag.AlignLeft | QtCore.Qt.AlignmentFlag.AlignVCenter
COLUMNS = ("joint", "live", "baseline", "ratio", "")


class JointTable(QtWidgets.QTableWidget):
    """A row for each joint: live value, baseline, their ratio and a traffic light, which has a shape and a word too."""

    def __init__(self) -> None:
        super().__init__(0, len(COLUMNS))
        self.setHorizontalHeaderLabels(COLUMNS)
        self.setToolTip("Root mean square of the signal above the cutoff. A row shows its joint on the right")
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(28)
        self.setShowGrid(False)
        self.setMinimumHeight(230)  # seven joints and the header
        self.setEditTriggers(QtWidgets.QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode.SingleSelection)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QtWidgets.QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QtWidgets.QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        header.setDefaultAlignment(RIGHT)
        self.horizontalHeaderItem(0).setTextAlignment(LEFT)

    def _set_rows(self, number_of_rows: int) -> None:
        self.setRowCount(number_of_rows)
        for i in range(number_of_rows):
            for j in range(len(COLUMNS)):
                item = QtWidgets.QTableWidgetItem()
                if 0 < j < len(COLUMNS) - 1:
                    item.setTextAlignment(RIGHT)
                self.setItem(i, j, item)
            self.setCellWidget(i, len(COLUMNS) - 1, label("level"))

    def draw(self, view: View, theme: Theme) -> None:
        """Draw a view's rows."""
        if self.rowCount() != len(view.rows):
            self._set_rows(len(view.rows))
        self.horizontalHeaderItem(1).setText(f"live [{view.unit}]")
        self.horizontalHeaderItem(2).setText("captured" if view.captured else "baseline")
        for i, row in enumerate(view.rows):
            for j, text in enumerate((row.joint, number(row.value), number(row.baseline), times(row.ratio))):
                self.item(i, j).setText(text)
            lamp = self.cellWidget(i, len(COLUMNS) - 1)
            lamp.setText(f"{SIGNS[row.level]} {WORDS[row.level]}")
            lamp.setStyleSheet(f"color: {theme.level(row.level)}; background: {theme.tint(row.level)};")
            if row.joint == view.joint and self.currentRow() != i:
                self.selectRow(i)


def number(value: float) -> str:
    """Three digits, or a dash for what is unknown."""
    return f"{value:.3g}" if math.isfinite(value) else "–"


def times(ratio: float) -> str:
    """A ratio, or a dash for what is unknown."""
    return f"{ratio:.2f} ×" if math.isfinite(ratio) else "–"


def card() -> Any:
    """A framed area."""
    frame = QtWidgets.QFrame()
    frame.setObjectName("card")
    return frame


def titled(text: str) -> tuple[Any, Any, Any]:
    """A framed area with a title: the frame, its layout and the row of the title."""
    frame = card()
    inner = QtWidgets.QVBoxLayout(frame)
    inner.setContentsMargins(10, 8, 10, 10)
    inner.setSpacing(6)
    head = QtWidgets.QHBoxLayout()
    head.addWidget(label("title", text), 1)
    inner.addLayout(head)
    return frame, inner, head


def choice() -> Any:
    """A list to choose from, as wide as its entries."""
    box = QtWidgets.QComboBox()
    box.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToContents)
    return box


def label(name: str, text: str = "") -> Any:
    """A text, named for the style sheet."""
    words = QtWidgets.QLabel(text)
    words.setObjectName(name)
    return words
