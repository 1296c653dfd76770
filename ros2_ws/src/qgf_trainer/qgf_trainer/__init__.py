# SPDX-License-Identifier: Apache-2.0
"""Training of smooth policies: networks, Q-gradient-field losses, TD3, evaluation and export."""
