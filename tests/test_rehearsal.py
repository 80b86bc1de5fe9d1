"""A rehearsal sees every stage of a method and what it costs, and leaves nothing behind."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch.nn.modules import module
from torch.optim import optimizer

from tacit.cli import main
from tacit.clip import Episode, Space
from tacit.data.collect import collect
from tacit.data.episodes import Episodes
from tacit.data.toys import dots, linear
from tacit.envs.dots import Board
from tacit.recipes.bc import bc
from tacit.recipes.idm import idm
from tacit.recipes.lapo import lapo
from tacit.rehearsal import STEPS, few, forewarned, rehearse
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


@pytest.mark.parametrize("chi", [0.0, 0.5, 0.55, 0.65, 1.0])
def test_a_settled_demonstrator_is_warned_of_above_the_bar_and_not_below(
    chi: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Part of the action follows from the state, the rest is chance; between the two lies R2 = 0.7."""
    share = chi**2 / (chi**2 + (1 - chi) ** 2)
    told = forewarned(partial(lapo, out=None), linear(episodes=60, determinism=chi).episodes)["determinism"]
    assert told["r2"] == pytest.approx(share, abs=0.05)
    assert told["warned"] == (share > 0.7) == ("R2(action | observation)" in caplog.text)
    assert told["n"] <= 4000


def test_an_expert_in_pictures_is_warned_of_and_one_mixed_with_play_is_not(caplog: pytest.LogCaptureFixture) -> None:
    board = Board(size=32, wrap=False)
    expert, play = (dots(board, episodes=120, determinism=chi, seed=1).episodes for chi in (1.0, 0.0))
    assert not forewarned(lapo, expert + play)["determinism"]["warned"] and not caplog.text
    assert forewarned(lapo, expert)["determinism"]["warned"] and "--demonstrator expert play" in caplog.text


def test_what_learns_no_latents_or_has_no_labels_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    expert = linear(episodes=60, determinism=1.0).episodes
    assert forewarned(partial(bc, points=4), expert) == forewarned(lapo, expert.unlabelled()) == {}
    assert forewarned(lapo, expert.keep_labels(16)) == {}  # too few to tell
    assert not caplog.text


@pytest.mark.parametrize("asked", [("--dry-run",), ("--labels", "0"), ("--stream", "--labels", "0")])
def test_training_on_an_expert_alone_says_so_first(
    asked: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collect("dots/plain", tmp_path / "video", episodes=120, size=16, workers=1, options={"wrap": False})
    small = ("--points", "4", "--width", "8", "--reach", "2", "--plan.steps", "4", "--plan.batch", "8")
    with caplog.at_level(logging.WARNING):
        words = ("train", "tacit", "--data", str(tmp_path / "video"), "--out", str(tmp_path / "out"), *small, *asked)
        assert main(words) == 0
    assert "R2(action | observation)" in caplog.text
    assert (tmp_path / "out").exists() == ("--dry-run" not in asked)
