# SPDX-License-Identifier: Apache-2.0
"""Live judgement of smoothness and timing: health rules and the node that publishes them."""
