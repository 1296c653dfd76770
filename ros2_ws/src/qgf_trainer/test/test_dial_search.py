# SPDX-License-Identifier: Apache-2.0
"""The decisions of `smoothness: auto`, on tries written out by hand and on tasks whose bearable dial is known."""

import json
import math

import pytest

from qgf_trainer.dial_search import AutoConfig, Decision, DialSearch, Try, loss, within

# Half of the budget, 5 %, is what a try may fall short by.
CONFIG = AutoConfig(budget=0.1, start=0.1, factor=2.0, largest=1.6, earliest=0.1, latest=0.5, look_back=0.9)


def judged(search, tries, done=0.1):
    return [search.observe(Try(*pair), done) for pair in tries]


def climbing():
    """A search that has just begun to climb: R = -100, roughness 0.5 at 0.1; the dial is 0.2."""
    search = DialSearch(CONFIG)
    judged(search, [(-100.0, 0.5), (-100.0, 0.5), (-100.0, 0.5)])
    assert (search.phase, search.dial) == ("climb", 0.2)
    return search


def test_the_budget_is_a_share_of_the_references_size():
    assert within(-105.0, -100.0, 0.05) and not within(-105.1, -100.0, 0.05)
    assert within(95.0, 100.0, 0.05) and not within(94.9, 100.0, 0.05)


def test_a_loss_is_judged_start_by_start_with_its_error_by_hand():
    reference = Try(-100.0, 0.5, (-40.0, -160.0))
    assert loss(Try(-105.0, 0.1, (-45.0, -165.0)), reference) == pytest.approx((0.05, 0.0)), "the same everywhere"
    # Losses of 0 and 6: 3 on the mean, with a deviation of sqrt(18) and an error of 3.
    assert loss(Try(-103.0, 0.1, (-40.0, -166.0)), reference) == pytest.approx((0.03, 0.03))
    assert loss(reference, reference) == (0.0, 0.0)
    with pytest.raises(ValueError):
        loss(Try(-40.0, 0.1, (-40.0,)), reference)


def test_the_dial_rests_while_the_return_rises():
    search = DialSearch(CONFIG)
    found = judged(search, [(-1000.0, 1.0), (-500.0, 0.9), (-510.0, 0.9), (-200.0, 0.7), (-150.0, 0.6)])
    assert search.phase == "learn" and all(d.dial == 0.1 for d in found)
    # Gains below a quarter of the budget are none: after two of those the dial goes up.
    assert judged(search, [(-148.0, 0.6), (-147.0, 0.6)])[-1] == Decision(0.2, True, False)


def test_a_return_that_has_not_begun_to_rise_is_no_plateau():
    search = DialSearch(CONFIG)
    assert {d.dial for d in judged(search, [(-1500.0, 1.0)] * 6, done=0.09)} == {0.1}
    assert search.observe(Try(-1500.0, 1.0), 0.11).dial == 0.2


def test_it_climbs_after_its_share_even_if_the_return_still_rises():
    search = DialSearch(CONFIG)
    assert search.observe(Try(-100.0, 0.5), 0.49).dial == 0.1
    assert search.observe(Try(-50.0, 0.5), 0.51).dial == 0.2


def test_it_does_not_leave_from_a_bad_try():
    search = DialSearch(CONFIG)
    assert [d.dial for d in judged(search, [(-100.0, 0.5), (-300.0, 0.9)], done=0.6)] == [0.2, 0.2]
    search = DialSearch(CONFIG)
    judged(search, [(-100.0, 0.5)])
    assert [d.dial for d in judged(search, [(-300.0, 0.9), (-300.0, 0.9), (-101.0, 0.5)])] == [0.1, 0.1, 0.2]


def test_it_climbs_to_the_largest_looks_back_and_stays():
    search = climbing()
    found = judged(search, [(-101.0, 0.4), (-102.0, 0.3), (-102.0, 0.2), (-103.0, 0.1)])
    assert [d.dial for d in found] == [0.4, 0.8, 1.6, 0.1] and search.phase == "probe"
    assert all(d.held and not d.go_back for d in found)
    # At the start's level the return is no better than what the largest dial has: its learner goes on.
    assert judged(search, [(-101.0, 0.3), (-99.0, 0.3)]) == [Decision(0.1, True, False), Decision(1.6, True, True)]
    assert search.phase == "stay"


def test_the_probe_tells_a_low_standard():
    search = climbing()
    judged(search, [(-100.0, 0.4), (-100.0, 0.3), (-120.0, 0.3), (-120.0, 0.3)])
    assert (search.phase, search._held, search._failed) == ("probe", 0.4, 0.8)
    # A nearly plain policy reaches -61 by now, and has not done rising after two tries: 0.4 is tried once more.
    found = judged(search, [(-80.0, 0.5), (-62.0, 0.5), (-61.0, 0.5)])
    assert found[-1] == Decision(0.4, True, False) and search.phase == "again"
    # It does not hold: half-way between the start and it.
    assert judged(search, [(-70.0, 0.4), (-70.0, 0.4)])[-1] == Decision(pytest.approx(0.2), False, True)
    assert search.phase == "narrow"
    assert judged(search, [(-63.0, 0.4)])[0].dial == pytest.approx(0.2 * 2**0.5)


def test_a_task_that_is_still_being_learned_is_not_taken_for_a_low_standard():
    search = climbing()
    judged(search, [(-90.0, 0.4), (-80.0, 0.3), (-79.0, 0.3), (-78.0, 0.3)])
    assert (search.phase, search._held) == ("probe", 1.6)
    assert judged(search, [(-60.0, 0.5), (-59.0, 0.5)])[-1] == Decision(1.6, True, False)
    # It gains as long as it does not hold, and is given the time; then nothing has ever failed and it stays.
    found = judged(search, [(-75.0, 0.4), (-70.0, 0.4), (-65.0, 0.3), (-60.0, 0.2)])
    assert [d.held for d in found] == [False, False, False, True] and {d.dial for d in found} == {1.6}
    assert search.phase == "stay"


def test_a_climb_that_ran_out_of_time_goes_on_after_the_probe_while_there_is_some():
    def looked_back(done):
        search = climbing()
        search.observe(Try(-101.0, 0.4), 0.91)  # 0.2 holds, the look back is over
        judged(search, [(-100.0, 0.5)] * 2, done=done)
        return search

    assert (looked_back(0.84).phase, looked_back(0.84).dial) == ("narrow", 0.4)
    assert (looked_back(0.86).phase, looked_back(0.86).dial) == ("stay", 0.2)
    search = looked_back(0.5)
    assert [d.dial for d in judged(search, [(-101.0, 0.3)] * 3, done=0.5)] == [0.8, 1.6, 1.6] and search.phase == "stay"


def test_a_level_that_gains_is_waited_for_but_not_beyond_the_look_back():
    search = climbing()
    found = judged(search, [(-50.0, 0.5), (-90.0, 0.4), (-80.0, 0.4), (-70.0, 0.4), (-60.0, 0.4)])
    assert [d.dial for d in found] == [0.4] * 5
    assert search.observe(Try(-54.0, 0.4), 0.9) == Decision(0.1, False, True)
    assert (search.phase, search._failed) == ("probe", 0.4)


def test_the_climb_ends_in_time():
    search = climbing()
    assert search.observe(Try(-101.0, 0.4), 0.89).dial == 0.4
    assert search.observe(Try(-101.0, 0.3), 0.91).dial == 0.1 and search.phase == "probe"


def test_one_bad_try_is_waited_out_and_two_end_the_climb():
    search = climbing()
    assert judged(search, [(-101.0, 0.4)]) == [Decision(0.4, True, False)]
    assert judged(search, [(-106.0, 0.3)]) == [Decision(0.4, False, False)]
    assert judged(search, [(-120.0, 0.3)]) == [Decision(0.1, False, True)]
    # The probe finds nothing better: back to the learner of 0.2, and on half-way to 0.4.
    assert judged(search, [(-101.0, 0.5), (-101.0, 0.5)])[-1] == Decision(pytest.approx(0.4 / 2**0.5), True, True)
    # It holds there, and 0.4 lies within a factor of 1.42: half-way once more, which fails, and the levels are alike.
    assert judged(search, [(-102.0, 0.35)]) == [Decision(pytest.approx(0.4 / 2**0.25), True, False)]
    assert judged(search, [(-110.0, 0.3), (-110.0, 0.3)])[-1] == Decision(pytest.approx(0.4 / 2**0.5), False, True)
    assert search.phase == "stay"


def test_a_rougher_policy_of_a_learner_that_still_learns_is_no_failure():
    search = climbing()
    assert [d.dial for d in judged(search, [(-90.0, 0.6), (-80.0, 0.8)])] == [0.4, 0.8]


def test_a_better_return_raises_the_bar():
    search = climbing()
    judged(search, [(-50.0, 0.4)])
    found = judged(search, [(-100.0, 0.1), (-100.0, 0.1)])
    assert not found[0].held and found[1].go_back


def test_at_rest_two_bad_tries_bring_it_back_a_factor_lower():
    search = climbing()
    judged(search, [(-100.0, 0.4), (-100.0, 0.3), (-100.0, 0.2), (-100.0, 0.1), (-100.0, 0.3), (-100.0, 0.3)])
    assert search.phase == "stay"
    assert judged(search, [(-150.0, 0.2), (-150.0, 0.2)]) == [Decision(1.6, False, False), Decision(0.8, False, True)]
    assert judged(search, [(-101.0, 0.2)]) == [Decision(0.8, True, False)] and search.phase == "stay"
    # At rest the whole budget, 10 %, may be used.
    assert all(d.held for d in judged(search, [(-109.0, 0.2)] * 3))
    assert [d.dial for d in judged(search, [(-150.0, 0.2)] * 8)][1::2] == [0.4, 0.2, 0.1, 0.1]


@pytest.mark.parametrize("slow", [0.03, 0.1])
@pytest.mark.parametrize("bears", [0.15, 0.3, 0.9, 3.0, 50.0])
def test_it_finds_the_dial_that_a_task_bears(bears, slow):
    """The return rises from -1500 to -100 with the time constant `slow` (a share of the run), less by 5 % at `bears`
    and more beyond; roughness falls with the dial."""
    config = AutoConfig(budget=0.1)
    search = DialSearch(config)
    for index in range(1, config.evaluations + 1):
        skill = -100.0 - 1400.0 * math.exp(-index / config.evaluations / slow)
        cost = 0.05 * abs(skill) * (search.dial - config.start) / (bears - config.start)
        search.observe(Try(skill - cost, 0.5 / (1 + search.dial)), index / config.evaluations)
    assert search.phase in ("narrow", "stay")
    # A return that rises after the probe too leaves the standard a little low.
    allowed = 1.6 if slow > 0.05 else 1.0
    assert min(bears, config.largest) / 2 < search._held <= min(allowed * bears, config.largest)


def test_its_state_survives_json_at_every_point():
    tries = [(-300.0, 1.0), (-100.0, 0.5), (-100.0, 0.5), (-100.0, 0.5), (-101.0, 0.4), (-120.0, 0.3), (-120.0, 0.3)]
    tries += [(-99.0, 0.5), (-90.0, 0.5), (-90.0, 0.5), (-95.0, 0.4), (-91.0, 0.4), (-92.0, 0.3)]
    whole, halved = DialSearch(CONFIG), DialSearch(CONFIG)
    for pair in tries:
        other = DialSearch(CONFIG)
        other.restore(json.loads(json.dumps(halved.state())))
        halved = other
        assert whole.observe(Try(*pair), 0.1) == halved.observe(Try(*pair), 0.1)
    assert vars(whole) == vars(halved)


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": 0.0},
        {"budget": 1.0},
        {"start": 0.0},
        {"start": 20.0},
        {"factor": 1.0},
        {"episodes": 0},
        {"earliest": 0.5},
        {"latest": 1.0},
    ]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        AutoConfig(**wrong)
