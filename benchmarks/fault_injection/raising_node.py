# SPDX-License-Identifier: Apache-2.0
"""policy_node whose model fails in torch while a file is there: `python raising_node.py FILE --ros-args ...`.

No bundle that is loaded can do that by itself: its operators raise by shapes, not by values, and shapes never change.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from qgf_core.bundle import Bundle
from qgf_policy import preflight
from qgf_policy.start import main


class FailsOnRequest(torch.nn.Module):
    """The policy's module; it gets one number too few while `request` exists, so that TorchScript raises."""

    def __init__(self, module: torch.nn.Module, request: Path) -> None:
        super().__init__()
        self.module, self.request = module, request

    def forward(self, observation: torch.Tensor) -> Any:
        return self.module(observation[:, 1:] if self.request.exists() else observation)


if __name__ == "__main__":
    genuine, request = preflight.load_bundle, Path(sys.argv.pop(1))

    def load_failing(*arguments: Any) -> Bundle:
        """As load_bundle, with the module replaced."""
        bundle = genuine(*arguments)
        return dataclasses.replace(bundle, module=FailsOnRequest(bundle.module, request), network=None)

    preflight.load_bundle = load_failing
    main()
