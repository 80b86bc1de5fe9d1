"""Recording: the same episodes whoever records them, the labels that were asked for, and nothing lost to a kill."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tacit.data
from tacit.clip import Clip
from tacit.data.cache import cache
from tacit.data.collect import collect, exogenous, record
from tacit.data.episodes import Episodes
from tacit.data.video import Damaged
from tacit.envs.dots import Board, Dots
from tacit.envs.simulator import Expert, Simulator

DOTS = functools.partial(Dots, Board(size=16))
DARK = functools.partial(Dots, Board(size=16, distractor=0.8))
quiet = functools.partial(collect, workers=1, size=16)


class Straight(nn.Module):
    """A policy that reads the state, keeps count, and is unsure by a random number."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.drop = nn.Dropout(0.9)  # does nothing unless somebody forgot to say that this is no training

    def start(self, batch: int) -> Tensor:
        return torch.zeros(batch)

    def act(self, observation: Clip, memory: Tensor) -> tuple[Tensor, Tensor]:
        assert observation.frames is not None
        assert observation.frames.shape == (1, 1, 3, 16, 16)
        assert observation.state is not None
        place, goal = observation.state[:, -1].split(2, -1)
        way = torch.remainder(goal - place + 6, 12) - 6
        return self.drop(self.gain * way).clamp(-1, 1) + 0.01 * torch.randn(1, 2), memory + 1


class Breaking(Dots):
    """Episode after episode, until one that cannot be played."""

    def start(self, seed: int) -> None:
        super().start(seed)
        if seed % 7 == 3:
            raise OSError(f"the cable fell out at {seed}")


class Slow(Dots):
    """A simulator with a rate that no dataset can hold."""

    fps = 4.2


class Dying(Dots):
    """A simulator that takes its process with it."""

    def apply(self, action: np.ndarray) -> tuple[float, bool, bool]:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(action)


def same(left: Episodes, right: Episodes) -> bool:
    return left.fingerprint == right.fingerprint and left.sources == right.sources


def test_episodes_do_not_depend_on_who_records_them(tmp_path: Path) -> None:
    one = collect(DOTS, episodes=7, demonstrator=["expert", "play"], noise=0.3, workers=1)
    two = collect(DOTS, tmp_path / "a", episodes=7, demonstrator=["expert", "play"], noise=0.3, workers=3, group=30)
    for number in range(7):
        mine, theirs = one.episode(number), two.episode(number)
        for name in ("frames", "state", "actions", "rewards", "source", "success"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)
    other = collect(DOTS, episodes=7, demonstrator=["expert", "play"], noise=0.3, seed=1, workers=1)
    assert not set(one.prints) & set(other.prints)
    assert len(set(one.prints)) == 7


def test_what_was_recorded_is_what_was_done() -> None:
    # the recorded actions, taken again from the recorded beginning, show the recorded frames: nothing is one off
    simulator = DOTS()
    for number in range(3):
        recording = record(simulator, Expert(noise=0.8), seed=number)
        episode = recording.episode
        observation, _ = simulator.reset(seed=number)
        for t, action in enumerate(episode.actions):
            np.testing.assert_array_equal(observation["frame"], episode.frames[t])
            np.testing.assert_array_equal(observation["state"], episode.state[t])
            observation, reward, *_ = simulator.step(action)
            assert reward == episode.rewards[t]
        np.testing.assert_array_equal(observation["frame"], episode.frames[-1])


@pytest.mark.parametrize("labels", ["all", 3, [1, 4], 0])
def test_labels_are_kept_exactly_where_asked(labels: Any, tmp_path: Path) -> None:
    whole = quiet(DOTS, episodes=6, demonstrator="play")
    expected = set(range(6)) if labels == "all" else set(range(labels)) if isinstance(labels, int) else set(labels)
    for out in (None, tmp_path / "a"):
        part = quiet(DOTS, out, episodes=6, demonstrator="play", labels=labels)
        assert part.prints == whole.prints
        assert part.spec.space == whole.spec.space
        assert part.labelled == sum(int(whole.lengths[i]) - 1 for i in expected)
        for number in range(6):
            actions = part.episode(number).actions
            if number in expected:
                np.testing.assert_array_equal(actions, whole.episode(number).actions)
            else:
                assert actions is None


def test_without_labels_nothing_is_said_of_actions(tmp_path: Path) -> None:
    for out in (None, tmp_path / "a"):
        part = quiet(DOTS, out, episodes=2, labels="none")
        assert part.spec.space is None
        assert part.episode(0).actions is None


def test_a_budget_of_frames_takes_the_fewest_episodes_that_hold_them(tmp_path: Path) -> None:
    for out in (None, tmp_path / "a"):
        part = quiet(DOTS, out, frames=100, demonstrator="play")
        assert part.lengths.sum() >= 100 > part.lengths[:-1].sum()
    more = quiet(DOTS, tmp_path / "a", frames=200, demonstrator="play")  # the folder grows
    assert same(more, quiet(DOTS, frames=200, demonstrator="play"))
    assert same(part, quiet(DOTS, tmp_path / "a", frames=100, demonstrator="play"))  # and what it began with is there


def test_demonstrators_take_turns() -> None:
    held = quiet(DOTS, episodes=6, demonstrator=["expert", "expert", "play"])
    assert held.sources == ("expert", "expert", "play") * 2
    assert all(held.episode(i).success for i in (0, 1, 3, 4))
    lengths = [quiet(DOTS, episodes=20, noise=noise).lengths.mean() for noise in (0.0, 1.0)]
    assert lengths[1] > 1.3 * lengths[0]  # noise is felt


def test_a_policy_is_recorded_alike_by_one_and_by_many(tmp_path: Path) -> None:
    policy = Straight().train()
    held = [collect(DOTS, episodes=4, demonstrator=policy, workers=workers) for workers in (1, 2)]
    assert same(*held)
    assert policy.training
    assert set(held[0].sources) == {"policy"}
    assert all(held[0].episode(i).success for i in range(4))
    state = torch.random.get_rng_state()
    collect(DOTS, episodes=1, demonstrator=policy, workers=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    collect(DOTS, tmp_path / "a", episodes=1, demonstrator=policy, workers=1)
    nn.init.constant_(policy.gain, 0.5)
    with pytest.raises(ValueError, match="demonstrator was"):
        collect(DOTS, tmp_path / "a", episodes=2, demonstrator=policy, workers=1)


def test_the_exogenous_state_is_kept_beside_the_dataset(tmp_path: Path) -> None:
    tracks = []
    for who in ("expert", "play"):
        held = quiet(DARK, tmp_path / who, episodes=5, demonstrator=who)
        tracks.append(exogenous(tmp_path / who, held))
        assert [len(track) for track in tracks[-1]] == held.lengths.tolist()
    for expert, play in zip(*tracks, strict=True):  # what is done does not move it
        shorter = min(len(expert), len(play))
        np.testing.assert_array_equal(expert[:shorter], play[:shorter])
    np.testing.assert_array_equal(exogenous(tmp_path / "play", held.select([3]))[0], tracks[1][3])
    quiet(DOTS, tmp_path / "plain", episodes=1)
    with pytest.raises(FileNotFoundError, match="no exogenous state"):
        exogenous(tmp_path / "plain", held)


def test_the_exogenous_state_is_found_again_however_its_episodes_are_held(tmp_path: Path) -> None:
    held = quiet(DARK, tmp_path / "d", episodes=5)
    tracks = exogenous(tmp_path / "d", held)
    odd = held.select([3, 1])
    for view, numbers in (
        (cache(odd), (3, 1)),
        (cache(odd, size=8), (3, 1)),
        (cache(odd) + held.select([4]), (3, 1, 4)),
    ):
        for track, number in zip(exogenous(tmp_path / "d", view), numbers, strict=True):
            np.testing.assert_array_equal(track, tracks[number])
    with pytest.raises(ValueError, match="Episode 0 of those given was not recorded into"):
        exogenous(tmp_path / "d", quiet(DARK, tmp_path / "other", episodes=1, seed=9))
    np.save(tmp_path / "d" / "meta" / "exogenous" / "000002.npy", tracks[2][:-1])
    assert len(exogenous(tmp_path / "d", odd)) == 2
    with pytest.raises(Damaged, match=r"000002\.npy has .* rows for"):
        exogenous(tmp_path / "d", held)


def test_any_gymnasium_environment_can_be_recorded() -> None:
    held = quiet("MountainCarContinuous-v0", episodes=1, demonstrator="play", size=24)
    assert held.spec.frame == (24, 24)
    assert held.spec.state == 2
    assert held.spec.name == "MountainCarContinuous-v0"
    assert held.episode(0).success is None
    with pytest.raises(ValueError, match="no expert of its own"):
        quiet("MountainCarContinuous-v0", episodes=1)


KILLED = """
import sys
from tests_of_collect import DOTS
from tacit.data.collect import collect
if __name__ == "__main__":
    out, workers = sys.argv[1], int(sys.argv[2])
    collect(DOTS, out, episodes=150, demonstrator=["expert", "play"], labels=50, workers=workers, group=128)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_recording_goes_on_where_it_was(workers: int, tmp_path: Path) -> None:
    (tmp_path / "tests_of_collect.py").write_text(
        "import functools\nfrom tacit.envs.dots import Board, Dots\nDOTS = functools.partial(Dots, Board(size=16))\n"
    )
    (tmp_path / "killed.py").write_text(KILLED)
    out = tmp_path / "a"
    root = str(Path(__file__).parents[2])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(tmp_path)])}
    command = [sys.executable, str(tmp_path / "killed.py"), str(out), str(workers)]
    victim = subprocess.Popen(command, env=env, start_new_session=True)
    until = time.monotonic() + 60
    while not (out / "meta" / "info.json").exists():
        assert victim.poll() is None
        assert time.monotonic() < until
        time.sleep(0.002)
    victim.kill()
    victim.wait()
    left = len(tacit.data.open(out))
    assert 0 < left < 150
    until = time.monotonic() + 20
    while _lives(victim.pid):  # nobody is left behind: its processes notice that it is no more
        assert time.monotonic() < until
        time.sleep(0.05)
    (out / ".partial").mkdir(exist_ok=True)
    subprocess.run([*command[:-1], "1"], env=env, check=True, timeout=60)
    again = tacit.data.open(out)
    assert same(again, collect(DOTS, episodes=150, demonstrator=["expert", "play"], labels=50, workers=1))


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_done_recording_is_not_recorded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = quiet("dots/plain", tmp_path / "a", episodes=4)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*") if p.is_file()}
    monkeypatch.setattr(Dots, "start", lambda *_: pytest.fail("a simulator was opened"))
    assert same(first, quiet("dots/plain", tmp_path / "a", episodes=4))
    assert quiet("dots/plain", tmp_path / "a", episodes=2).prints == first.prints[:2]
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*") if p.is_file()}


@pytest.mark.parametrize("change", [{"seed": 1}, {"noise": 0.5}, {"labels": 1}, {"demonstrator": "play"}, {"size": 24}])
def test_another_recording_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    quiet(DOTS, tmp_path / "a", episodes=2)
    with pytest.raises(ValueError, match=f"{next(iter(change))} was .*, now"):
        quiet(DOTS, tmp_path / "a", episodes=3, **change)
    assert len(tacit.data.open(tmp_path / "a")) == 2


def test_a_folder_in_which_recording_failed_at_once_takes_another(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="whole number"):
        quiet(functools.partial(Slow, Board(size=16)), tmp_path / "a", episodes=2)
    assert len(quiet(DOTS, tmp_path / "a", episodes=2)) == 2


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "aunt.txt").write_text("dear")
    tacit.data.save(quiet(DOTS, episodes=2), tmp_path / "saved")
    for name in ("letters", "saved"):
        with pytest.raises(FileExistsError, match="give another"):
            quiet(DOTS, tmp_path / name, episodes=2)
    assert [p.name for p in (tmp_path / "letters").iterdir()] == ["aunt.txt"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_simulator_is_named_and_the_rest_kept(workers: int, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the cable fell out"):
        collect(functools.partial(Breaking, Board(size=16)), tmp_path / "a", episodes=100, workers=workers)
    kept = tacit.data.open(tmp_path / "a")
    assert len(kept) > 0
    assert kept.prints == quiet(DOTS, episodes=len(kept)).prints


def test_a_dying_process_is_noticed() -> None:
    with pytest.raises(ChildProcessError, match="exit code -9 at number 0.*fewer workers"):
        collect(functools.partial(Dying, Board(size=16)), episodes=4, workers=2)


def test_what_cannot_travel_is_recorded_here() -> None:
    with pytest.warns(UserWarning, match="cannot be sent to other processes"):
        held = collect(lambda: Dots(Board(size=16)), episodes=3, workers=2)
    assert held.prints == quiet(DOTS, episodes=3).prints


class Stranger(gymnasium.Env[Any, Any]):
    """An environment with a picture for an observation, and a stranger's idea of numbering actions."""

    action_space = gymnasium.spaces.Discrete(3, start=5)
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 0
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.place += int(action) - 4
        return self._seen(), 1.0, self.place >= 8, False, {"is_success": self.place == 8}

    def _seen(self) -> np.ndarray:
        picture = np.zeros((8, 8, 3), np.uint8)
        picture[0, self.place % 8] = 255
        return picture


def test_a_stranger_is_made_to_fit() -> None:
    held = quiet(Stranger, episodes=10, demonstrator="play", size=8)
    assert held.spec.space is not None
    assert (held.spec.space.kind, held.spec.space.size, held.spec.state) == ("discrete", 3, 0)
    for number in range(10):
        episode = held.episode(number)
        places = np.concatenate([[0], np.cumsum(episode.actions + 1)])
        np.testing.assert_array_equal(episode.frames[:, 0, :, 0].argmax(-1), places % 8)
        assert episode.success == (places[-1] == 8)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "wanted one of them"),
        ({"episodes": 1, "frames": 1}, "wanted one of them"),
        ({"episodes": 0}, "at least 1"),
        ({"episodes": 1, "demonstrator": "teacher"}, "wanted 'expert', 'play'"),
        ({"episodes": 1, "labels": "some"}, "wanted 'all', 'none'"),
        ({"episodes": 1, "labels": -1}, "wanted 'all', 'none'"),
        ({"episodes": 1, "labels": True}, "wanted 'all', 'none'"),
        ({"episodes": 1, "workers": 0}, "workers is 0"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        collect(DOTS, **{"workers": 1, **wrong})


def test_a_misspelt_name_is_answered() -> None:
    with pytest.raises(ValueError, match="Did you mean 'dots/plain'"):
        quiet("dots/plan", episodes=1)


def test_simulators_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Simulator] = []
    monkeypatch.setattr(Dots, "close", lambda self: closed.append(self))
    quiet(DOTS, episodes=1)
    quiet(DOTS, frames=10)
    assert len(closed) == 2
