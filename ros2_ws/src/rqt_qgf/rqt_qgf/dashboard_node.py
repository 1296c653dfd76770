# SPDX-License-Identifier: Apache-2.0
"""The dashboard in a window of its own: `./qgf dashboard`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args


def parser():
    text = argparse.ArgumentParser(
        prog="./qgf dashboard", description="A window on a running policy: how smooth it is, joint by joint, against "
        "its baseline; command and response, spectrum and timing; activation and emergency stop. It finds the policy "
        "and monitor nodes in the graph by itself.",
        epilog="ROS arguments follow --ros-args, e.g. --ros-args -r __ns:=/left")
    text.add_argument("--theme", choices=("light", "dark"), default="", help="colours (default: those of the desktop)")
    text.add_argument("--arm", default="", metavar="NAMESPACE", help="arm to show first, e.g. /left")
    text.add_argument("--size", default="1280x800", metavar="WxH", help="size of the window (default: %(default)s)")
    text.add_argument("--shot", default="", metavar="FILE.png", help="save a picture after --after seconds, and end")
    text.add_argument("--after", type=float, default=8.0, metavar="S", help="see --shot (default: %(default)s)")
    text.add_argument("--source", default="", help="signal to show first, e.g. raw_action")
    text.add_argument("--joint", default="", help="joint to show first")
    return text


def main(args=None) -> int:
    words = remove_ros_args(["dashboard", *(sys.argv[1:] if args is None else args)])[1:]
    settings = parser().parse_args(words)
    try:
        from pyqtgraph.Qt import QtCore, QtWidgets
    except ImportError as error:
        print(f"qgf: error: the window cannot be opened: {error}; ./qgf dashboard --help tells what it needs",
              file=sys.stderr)
        return 2
    from rqt_qgf.link_node import RosLink
    from rqt_qgf.widget import Dashboard

    width, _, height = settings.size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        print(f"qgf: error: --size {settings.size}: give two numbers, e.g. 1280x800", file=sys.stderr)
        return 2
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("dashboard")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                return

    thread = threading.Thread(target=spin, name="answers", daemon=True)
    thread.start()
    application = QtWidgets.QApplication(["dashboard"])
    window = Dashboard(RosLink(node), settings.theme)
    window.resize(int(width), int(height))
    window.prefer(settings.arm, settings.source, settings.joint)
    window.show()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: application.quit())  # noticed when the window's timer next runs
    if settings.shot:
        def shoot():
            window.save_png(settings.shot)
            application.quit()
        QtCore.QTimer.singleShot(round(1000 * settings.after), shoot)
    application.exec_() if hasattr(application, "exec_") else application.exec()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal's and a launch's: the second one finds us ending
    window.close_link()
    stop.set()
    thread.join()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
