# SPDX-License-Identifier: Apache-2.0
"""TD3 and SAC of Stable-Baselines3 with the stabilised critic: same constructor, `learn`, `save` and `load`.

Stable-Baselines3's own training step runs untouched. What it samples is noted, and just before its critic's optimiser
steps, the gradients of the field losses are added to those of the TD loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qgf_core.errors import QgfError
from qgf_trainer.q_gradient_field import FieldConfig, FieldStabiliser
from qgf_trainer.stacked import stack

try:
    from stable_baselines3 import SAC, TD3
    from stable_baselines3.common.torch_layers import FlattenExtractor
except ImportError as error:
    raise QgfError(
        f"Stable-Baselines3 cannot be imported ({error}); install it: pip install stable-baselines3"
    ) from error

CLASSIC = FieldConfig(smoothness=0.3)
"""The scale-free form at the dial that suits classic control tasks; arms bear more (see FieldConfig)."""

_STATISTICS_EVERY = 500  # updates between refreshes of the observations' and rewards' deviations


class _Noting:
    """A replay buffer that remembers its latest sample."""

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        self.latest: Any = None

    def sample(self, *arguments: Any, **named: Any) -> Any:
        self.latest = self._buffer.sample(*arguments, **named)
        return self.latest


class _Stabilised:
    """Mixed into an off-policy algorithm before its own class."""

    field: FieldConfig
    stabiliser: FieldStabiliser
    critic: Any
    replay_buffer: Any

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        field: FieldConfig = CLASSIC,
        policy_kwargs: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if field.smoothness == "auto":
            raise QgfError("smoothness 'auto' needs the training loop of ./qgf train; give a number")
        self.field = field
        self._field_state: dict[str, Any] | None = None
        self._deviations: tuple[torch.Tensor, float] | None = None
        super().__init__(  # type: ignore[call-arg]
            policy, env, policy_kwargs={"activation_fn": nn.SiLU, **(policy_kwargs or {})}, **settings
        )

    def _setup_model(self) -> None:
        super()._setup_model()  # type: ignore[misc]
        if not isinstance(self.critic.features_extractor, FlattenExtractor):
            raise QgfError("the observation must be a Box that is fed in flat; use MlpPolicy without an extractor")
        n_steps = getattr(self, "n_steps", 1)
        if n_steps != 1:
            raise QgfError(f"n_steps {n_steps}: field consistency needs the next state; set n_steps=1")
        stack(self.critic.q_networks, self.critic.action_space.shape[0])  # refuses what does not fit, now
        seed = getattr(self, "seed", None)
        self.stabiliser = FieldStabiliser(self.field, torch.Generator().manual_seed((seed or 0) + 1))
        if self._field_state is not None:
            state = dict(self._field_state)
            generator = torch.frombuffer(bytearray(state.pop("generator")), dtype=torch.uint8)
            self.stabiliser.generator.set_state(generator)
            self.stabiliser.restore(state)
        self.critic.optimizer.register_step_pre_hook(self._add_gradients)

    def _refresh(self) -> tuple[torch.Tensor, float]:
        """Deviations of what is stored, as the networks see it."""
        buffer, normalise = self.replay_buffer, getattr(self, "_vec_normalize_env", None)
        size = buffer.buffer_size if buffer.full else buffer.pos
        observations, rewards = buffer.observations[:size], buffer.rewards[:size]
        if normalise is not None:
            observations, rewards = normalise.normalize_obs(observations), normalise.normalize_reward(rewards)
        flat = torch.as_tensor(observations, dtype=torch.float32).flatten(0, 1).flatten(1)
        return flat.std(0, correction=0).to(self.critic.device), float(rewards.std())

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """As Stable-Baselines3's, with the field losses in the critic's step."""
        buffer = self.replay_buffer
        if self._deviations is None or self.stabiliser.updates // _STATISTICS_EVERY != (
            (self.stabiliser.updates + gradient_steps) // _STATISTICS_EVERY
        ):
            self._deviations = self._refresh()
        self.replay_buffer = _Noting(buffer)
        try:
            super().train(gradient_steps, batch_size)  # type: ignore[misc]
        finally:
            self.replay_buffer = buffer
        for name, value in self.stabiliser.latest.items():
            self.logger.record(f"train/{name}", value)  # type: ignore[attr-defined]

    def _add_gradients(self, *_: Any) -> None:
        if not isinstance(self.replay_buffer, _Noting) or self._deviations is None:
            return  # somebody else's step of this optimiser
        drawn = self.replay_buffer.latest
        parameters = [p for network in self.critic.q_networks for p in network.parameters()]
        loss = self.stabiliser.loss(
            stack(self.critic.q_networks, drawn.actions.shape[1]),
            drawn.observations.float().flatten(1),
            drawn.actions.float(),
            drawn.next_observations.float().flatten(1),
            *self._deviations,
        )
        if loss is None:
            return
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:  # the last bias is in no derivative of Q
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def save(self, *arguments: Any, **named: Any) -> None:
        """As Stable-Baselines3's; the state of the field losses is in the file too."""
        generator = self.stabiliser.generator.get_state().numpy().tobytes()
        self._field_state = {**self.stabiliser.state(), "generator": generator}
        super().save(*arguments, **named)  # type: ignore[misc]

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "stabiliser"]  # type: ignore[misc]


class QGradientFieldTD3(_Stabilised, TD3):
    """TD3 with the stabilised critic.

    :param field: which losses; `paper_form(FieldConfig())` is the published one. The other arguments are those of
        stable_baselines3.TD3, by name; the activation is SiLU unless `policy_kwargs` say otherwise.
    """


class QGradientFieldSAC(_Stabilised, SAC):
    """SAC with the stabilised critic; arguments as for `QGradientFieldTD3`."""
