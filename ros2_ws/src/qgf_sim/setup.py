# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

package_name = "qgf_sim"

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
    description="Simulated robot arms: PyBullet worlds, Gymnasium environments and the real-time simulation node",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "sim_node = qgf_sim.start:main",
            "camera_node = qgf_sim.start:camera_node",
            "identify = qgf_sim.identify_node:main",
            "robot = qgf_sim.robot_cli:main",
        ],
    },
)
