# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

package_name = "qgf_policy"

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
    description="Deployment of a policy bundle at a fixed rate: the runner and the lifecycle node around it",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "policy_node = qgf_policy.start:main",
            "preflight = qgf_policy.preflight_node:main",
        ],
    },
)
