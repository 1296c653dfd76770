# SPDX-License-Identifier: Apache-2.0
"""An activation waits for what a little more time mends, and for nothing else."""

from types import SimpleNamespace

import pytest

from qgf_core.errors import StateError
from qgf_policy import session
from qgf_policy.session import Session


@pytest.fixture
def made(monkeypatch):
    """Makes a session whose loop refuses an activation for these reasons, one after another, and then does it."""
    monkeypatch.setattr(session, "STATE_WAIT", 0.2)
    made = object.__new__(Session)
    made.tries = 0

    def build(*kinds, surroundings=None):
        left = list(kinds)

        def activate(state, now):
            made.tries += 1
            if left:
                raise StateError(left.pop(0), "the reason")

        made.loop = SimpleNamespace(activate=activate)
        monkeypatch.setattr(Session, "_judge_surroundings", lambda self: surroundings)
        monkeypatch.setattr(Session, "_ask", lambda self, job: job(None, 0))
        return made

    return build


def test_it_waits_for_states_also_where_they_are_missed_only_by_the_last_look(made):
    """As when the arm is put elsewhere between two looks, and has to be watched anew."""
    one = made("incomplete_state", "stale_state", "state_rate", "state_rate")
    one.activate()
    assert one.tries == 5


@pytest.mark.parametrize("kind", ["estop", "busy", "position_limit"])
def test_anything_else_is_refused_at_once(made, kind):
    one = made(kind)
    with pytest.raises(StateError, match="the reason"):
        one.activate()
    assert one.tries == 1


def test_it_does_not_wait_for_ever_and_a_rival_is_looked_for_each_time(made):
    one = made(*["state_rate"] * 1000)
    with pytest.raises(StateError, match="the reason"):
        one.activate()
    assert 2 < one.tries < 100
    one = made(surroundings=StateError("second_commander", "a rival"))
    one.tries = 0
    with pytest.raises(StateError, match="a rival"):
        one.activate()
    assert one.tries == 0
