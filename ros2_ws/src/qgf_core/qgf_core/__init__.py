# SPDX-License-Identifier: Apache-2.0
"""Shared logic without ROS: robot descriptions, kinematics, observations, actions, limits, smoothness, bundles."""
