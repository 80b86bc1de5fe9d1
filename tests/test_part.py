"""A part is its constructor's arguments and its weights: saved and loaded whole, and nothing foreign let in."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import tacit.part
from tacit.clip import Clip, Space
from tacit.part import CONFIG, WEIGHTS, Part, config, place, printed, sweep, write
from tacit.parts.books import VQ
from tacit.parts.outputs import Head
from tacit.parts.slow import Slow


class Inner(Part):
    def __init__(self, dim: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.dim, self.gain, self.steps = dim, gain, 0
        self.net = nn.Linear(dim, dim)

    def after_step(self) -> None:
        self.steps += 1


class Outer(Part):
    def __init__(
        self, inner: Part, *, space: Space, names: tuple[str, ...] = (), more: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.inner, self.space, self.names, self.more = inner, space, names, more
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


class Wider(Inner):
    """Calls the constructor above with what it makes of its own argument."""

    def __init__(self, half: int) -> None:
        super().__init__(2 * half, gain=3.0)


MINE = (Inner, Outer, Wider)


def outer() -> Outer:
    space = Space("continuous", 2, -np.inf, 4.0, ("left", "right"))
    return Outer(Inner(3, gain=float("inf")), space=space, names=("a", "b"), more={"deep": [1, None, True], "x": 0.5})


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    part = outer()
    part.count += 7
    part.seen = frozenset({"b", "a"})
    again = Outer.load(part.save(tmp_path / "here"), classes=MINE)
    assert {p.name for p in (tmp_path / "here").iterdir()} == {CONFIG, WEIGHTS}
    assert again.arguments["space"] == part.space and again.names == ("a", "b") and again.inner.gain == float("inf")
    assert again.more == {"deep": (1, None, True), "x": 0.5}
    assert again.seen == {"a", "b"} and not again.training
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in part.state_dict().items())
    assert config(again) == config(part) and printed(again) == printed(part)


def test_the_arguments_kept_are_those_the_caller_gave(tmp_path: Path) -> None:
    part = Wider(2)
    assert dict(part.arguments) == {"half": 2} and part.dim == 4
    assert Part.load(part.save(tmp_path), classes=MINE).gain == 3.0  # type: ignore[attr-defined]


def test_what_any_inner_part_has_seen_is_kept(tmp_path: Path) -> None:
    part = outer()
    part.inner.seen, part.seen = frozenset({"pretrained"}), frozenset({"tuned"})
    again = Part.load(part.save(tmp_path), classes=MINE)
    assert again.seen == {"pretrained", "tuned"}
    assert again.inner.seen == {"pretrained", "tuned"}, "taken out, it still knows"  # type: ignore[attr-defined]


def test_tacits_own_parts_need_no_naming(tmp_path: Path) -> None:
    head = Head(features=np.int64(4), space=Space("discrete", 3), width=8)  # type: ignore[arg-type]
    books = VQ(groups=1, tokens=2, dim=2, codes=4)
    for part in (head, books, Slow(Head(features=2, space=Space("discrete", 2)))):
        again = Part.load(part.save(tmp_path / type(part).__name__))
        assert type(again) is type(part)


def test_a_class_of_a_script_is_known_again_elsewhere(tmp_path: Path) -> None:
    Inner(2).save(tmp_path)
    rewrite(tmp_path, lambda told: told.update(part="__main__:Inner"))
    assert isinstance(Part.load(tmp_path, classes=[Inner]), Inner)
    rewrite(tmp_path, lambda told: told.update(part="tacit.parts.outputs:Inner"))
    with pytest.raises(ValueError, match="has no part"):  # but what claims to be tacit's is tacit's or nothing
        Part.load(tmp_path, classes=[Inner])


def test_a_print_changes_with_weights_and_with_arguments() -> None:
    torch.manual_seed(0)
    one = Inner(3)
    torch.manual_seed(0)
    other = Inner(3, gain=2.0)
    assert printed(one) != printed(other)
    before = printed(one)
    with torch.no_grad():
        one.net.bias[0] = one.net.bias[0].nextafter(torch.tensor(1.0))
    assert printed(one) != before


@pytest.mark.parametrize("value", [object(), torch.zeros(1), {1: 2}, {3}])
def test_an_argument_that_json_cannot_say_is_refused_before_anything_is_written(value: Any, tmp_path: Path) -> None:
    part = Outer(Inner(1), space=Space("discrete", 2), more={"x": value})
    with pytest.raises(TypeError, match="cannot be saved with an argument of type"):
        part.save(tmp_path / "here")
    assert not (tmp_path / "here").exists()


def rewrite(folder: Path, change: Any) -> None:
    told = json.loads((folder / CONFIG).read_text())
    change(told)
    weights = load_file(folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(told))
    save_file(weights, folder / WEIGHTS)  # without the note that says which config it was saved with


@pytest.mark.parametrize(
    "name",
    [
        "os:system", "builtins:eval", "tacit.part:_own", "tacit.part:json", "tacit.part:Part.save", "tacit:os",
        "tacit.data.cache:subprocess", "tacit.train:fit", "tacit.clip:Clip", "tacit.__main__:main", "tacit..part:Part",
        "tacit.parts.nothing:Here", "tacit.parts.quantize:Nothing", "tests.test_part:Inner", "", "tacit.parts.quantize",
    ],
)  # fmt: skip
def test_a_folder_runs_no_code_but_tacits_own_parts(name: str, tmp_path: Path) -> None:
    Head(features=2, space=Space("discrete", 2)).save(tmp_path)
    rewrite(tmp_path, lambda told: told.update(part=name))
    with pytest.raises(ValueError, match=r"Refusing to load|has no part"):
        Part.load(tmp_path)


BROKEN: dict[str, Any] = {
    "no json": "{",
    "a list": "[]",
    "no seen": '{"part": "tacit.parts.outputs:Head", "arguments": {}}',
    "seen of numbers": '{"part": "tacit.parts.outputs:Head", "arguments": {}, "seen": 3}',
    "no arguments": '{"part": "tacit.parts.outputs:Head", "seen": []}',
    "wrong arguments": '{"part": "tacit.parts.outputs:Head", "arguments": {"depth": 3}, "seen": []}',
    "wrong types": '{"part": "tacit.parts.outputs:Head", "arguments": {"features": "x", "space": 3}, "seen": []}',
    "deep": '{"seen": [], "part": "x", "arguments": ' + '{"a":' * 9000 + "1" + "}" * 9001,
    "not utf-8": b"\xff\xfe\xff",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_config_that_is_none_is_named(text: str | bytes, tmp_path: Path) -> None:
    Head(features=2, space=Space("discrete", 2)).save(tmp_path)
    (tmp_path / CONFIG).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"config.json is not a config that tacit wrote"):
        Part.load(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_weights_cut_short_are_never_taken_for_whole(kept: int, tmp_path: Path) -> None:
    Head(features=2, space=Space("discrete", 2)).save(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:kept])
    with pytest.raises(ValueError, match="does not fit Head"):
        Part.load(tmp_path)


def test_weights_and_config_of_two_saves_are_not_mixed(tmp_path: Path) -> None:
    part = Inner(2)
    part.save(tmp_path)
    old = (tmp_path / CONFIG).read_bytes()
    part.seen = frozenset({"held-out"})
    part.save(tmp_path)
    (tmp_path / CONFIG).write_bytes(old)  # as a kill between the two would leave it
    with pytest.raises(ValueError, match="are not of one save"):
        Part.load(tmp_path, classes=MINE)


def test_another_part_or_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no config.json; give a folder"):
        Part.load(tmp_path)
    Inner(2).save(tmp_path)
    with pytest.raises(ValueError, match="holds a Inner; wanted a Outer"):
        Outer.load(tmp_path, classes=MINE)


def test_a_full_disk_leaves_the_old_save_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Inner(2)
    before = part.save(tmp_path) and {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    nn.init.ones_(part.net.weight)

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left") as caught:
            part.save(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_tensors_go_into_the_file_that_is_named_and_by_way_of_no_other(tmp_path: Path) -> None:
    """A writer that renames a file of its own leaves it behind when it is killed, under a name nobody sweeps."""
    path = tmp_path / "a"
    path.touch()
    before = path.stat().st_ino
    tacit.part.store({"x": torch.ones(3)}, str(path), about={"k": "v"})
    assert path.stat().st_ino == before and load_file(path)["x"].tolist() == [1, 1, 1]


def test_of_several_files_none_is_placed_before_all_are_written(tmp_path: Path) -> None:
    write(tmp_path / "a", lambda path: Path(path).write_text("old"))

    def fail(path: str) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        place({tmp_path / "a": lambda path: Path(path).write_text("new"), tmp_path / "b": fail})
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"


def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        write(tmp_path / "a", lambda path: os._exit(0))
    os.waitpid(pid, 0)
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".cache.partial").mkdir()
    (tmp_path / "b").write_text("kept")
    assert len(list(tmp_path.iterdir())) == 4
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".partial", ".cache.partial", "b"}


def test_after_a_step_every_part_is_told_once() -> None:
    class Holder(Part):
        def __init__(self, parts: tuple[Part, ...]) -> None:
            super().__init__()
            self.row = nn.ModuleList([nn.Sequential(parts[0], nn.ReLU()), parts[1]])

    inner, other = Inner(1), Inner(2)
    Holder((inner, Outer(other, space=Space("discrete", 2)))).after_step()
    assert (inner.steps, other.steps) == (1, 1)


def test_a_part_without_a_loss_says_whom_to_train() -> None:
    with pytest.raises(TypeError, match="Inner has no loss of its own; train the model that it is a part of"):
        Inner(1).loss(Clip(state=torch.zeros(1, 2, 1)))


def test_a_call_is_the_loss() -> None:
    class Lossy(Part):
        def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
            return torch.tensor(3.0), {}

    assert Lossy()(Clip(state=torch.zeros(1, 2, 1)))[0] == 3 and Lossy().device == torch.device("cpu")
