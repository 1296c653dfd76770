# SPDX-License-Identifier: Apache-2.0
"""The dashboard: smoothness, timing and state of a policy at a glance, in rqt or in a window of its own."""
