"""A rehearsal sees every stage of a method and what it costs, and leaves nothing behind."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from torch.nn.modules import module
from torch.optim import optimizer

from tacit.clip import Episode, Space
from tacit.data.episodes import Episodes
from tacit.recipes.bc import bc
from tacit.recipes.idm import idm
from tacit.rehearsal import STEPS, few, rehearse
from tacit.train import Plan


def episodes(count: int = 12, *, length: int = 10) -> Episodes:
    random = np.random.default_rng(0)

    def one(number: int) -> Episode:
        frames = random.integers(256, size=(length, 16, 16, 3), dtype=np.uint8)
        actions = random.uniform(-1, 1, (length - 1, 2)).astype(np.float32)
        return Episode(frames=frames, actions=actions, source="expert" if number % 3 else "play")

    return Episodes.of((one(number) for number in range(count)), space=Space("continuous", 2))


def test_a_few_episodes_are_of_every_source_and_those_with_labels_come_first() -> None:
    data = episodes().keep_labels(5, stretch=5, seed=1)
    some = few(data, frame=(8, 8), frames=15)
    assert sorted(some.sources) == ["expert", "expert", "play", "play"]
    assert (some.labelled, some.spec.frame) == (5, (8, 8))


def test_every_stage_is_seen_with_its_own_cost() -> None:
    recipe, plan = partial(idm, out=None, hidden=8), Plan(steps=500, batch=4, precision="float32")
    found = rehearse(recipe, episodes(), plan=plan)
    supervised, cloning = found["stages"]
    assert (supervised["model"], cloning["model"]) == ("Supervised", "Cloning")
    assert supervised["clip"]["frames"] == [4, 3, 3, 16, 16]
    assert found["seconds"] == pytest.approx(500 * (supervised["seconds_per_step"] + cloning["seconds_per_step"]))
    parameters = supervised["parameters"] + cloning["parameters"]
    assert 4 * parameters <= found["disk_bytes"] <= 4 * 6 * parameters
    assert supervised["parameters"] != cloning["parameters"]


def test_the_hooks_are_gone_afterwards_even_after_a_failure() -> None:
    def broken(data: Episodes, plan: Plan) -> None:
        assert plan.steps == STEPS
        bc(data, None, points=2, width=8, plan=plan)
        raise ValueError("after training")

    before = len(module._global_forward_pre_hooks)
    with pytest.raises(ValueError, match="after training"):
        rehearse(broken, episodes(), plan=Plan(steps=500, batch=4))
    assert len(module._global_forward_pre_hooks) == before
    assert not optimizer._global_optimizer_post_hooks
