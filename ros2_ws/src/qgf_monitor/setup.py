# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

package_name = "qgf_monitor"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + package_name]),
        ("share/" + package_name, ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="QGF developers",
    maintainer_email="qgf@users.noreply.github.com",
    description="Live judgement of smoothness and timing: health rules and the node that publishes them",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "governor_node = qgf_monitor.start:governor_node",
            "monitor_node = qgf_monitor.start:monitor_node",
            "analyse = qgf_monitor.analyse_cli:main",
            "explain = qgf_monitor.explain_cli:main",
        ],
    },
)
