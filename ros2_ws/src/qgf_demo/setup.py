# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

package_name = "qgf_demo"

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
    description="The demo: trains, deploys, measures and reports a plain and a stabilised policy",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "demo = qgf_demo.cli:main",
            "send_goal = qgf_demo.send_goal:main",
        ],
    },
)
