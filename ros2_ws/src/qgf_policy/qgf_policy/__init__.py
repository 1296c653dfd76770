# SPDX-License-Identifier: Apache-2.0
"""Deployment of a policy bundle at a fixed rate: the runner and the lifecycle node around it."""
