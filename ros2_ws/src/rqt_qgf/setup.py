# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

package_name = "rqt_qgf"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + package_name]),
        ("share/" + package_name, ["package.xml", "plugin.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="QGF developers",
    maintainer_email="qgf@users.noreply.github.com",
    description="Dashboard of smoothness, timing and state, for rqt and as a window of its own",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "dashboard = rqt_qgf.dashboard_node:main",
        ],
    },
)
