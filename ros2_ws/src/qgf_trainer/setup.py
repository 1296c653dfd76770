# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

package_name = "qgf_trainer"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["csrc/*.h", "csrc/*.cpp"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + package_name]),
        ("share/" + package_name, ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="QGF developers",
    maintainer_email="qgf@users.noreply.github.com",
    description="Training of smooth policies: networks, Q-gradient-field losses, TD3, evaluation and export",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "trainer_node = qgf_trainer.trainer_node:main",
            "train = qgf_trainer.cli:train_main",
            "evaluate = qgf_trainer.cli:evaluate_main",
            "compare = qgf_trainer.comparison_cli:main",
            "geometry = qgf_trainer.geometry_cli:main",
        ],
    },
)
