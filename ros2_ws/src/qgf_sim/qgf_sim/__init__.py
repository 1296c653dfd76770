# SPDX-License-Identifier: Apache-2.0
"""Simulated robot arms: PyBullet worlds, Gymnasium environments and the real-time simulation node."""
