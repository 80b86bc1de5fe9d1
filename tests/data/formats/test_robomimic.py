"""robomimic: what is written is read again, files of its own kind are read right, and no file leads elsewhere."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tacit.check import check_reader
from tacit.clip import Space
from tacit.data import Damaged, Episodes
from tacit.data.formats import robomimic
from tests.data.formats.several import FIVE, VECTOR, recorded, unlike


@pytest.mark.parametrize("space", [None, FIVE, VECTOR], ids=str)
@pytest.mark.parametrize(("frames", "state"), [(True, False), (False, True), (True, True)])
def test_what_is_written_is_read_again(tmp_path: Path, space: Space | None, frames: bool, state: bool) -> None:
    episodes = recorded(space, frames=frames, state=state)
    given = Episodes.of(episodes, space=space, fps=12.5, name="kept")
    path = tmp_path / "kept.hdf5"
    robomimic.write(given, path)
    reader = robomimic.read(path)
    assert reader.spec == given.spec and robomimic.recognises(path)
    assert [unlike(a, reader.episode(i)) for i, a in enumerate(episodes)] == [[]] * 5
    assert reader.splits == given.splits and reader.prints == given.prints
    assert reader.opening == {"path": str(path.absolute()), "camera": None}
    check_reader(reader)


def demonstrations(path: Path, *, following: bool = True, cameras: tuple[str, ...] = ("agentview_image",)) -> Path:
    """Twelve demonstrations laid out as robomimic collects them; each action is the number of its observation."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for number in range(1, 13):
            steps = 3 + number % 3
            demo = data.create_group(f"demo_{number}")
            count = np.arange(steps + 1) + 10 * number
            for group, rows in (("obs", count[:-1]), ("next_obs", count[1:]))[: 1 + following]:
                for camera in cameras:
                    shown = np.zeros((steps, 8, 10, 3), np.uint8) + rows[:, None, None, None].astype(np.uint8)
                    demo.create_dataset(f"{group}/{camera}", data=shown)
                demo[f"{group}/robot0_eef_pos"] = rows[:, None] * np.ones(3)
                demo[f"{group}/object"] = np.stack([rows, -rows], 1).astype(np.float64)
            demo["actions"] = np.repeat(count[:-1, None], 2, 1) / 200
            demo["rewards"], demo["dones"] = np.arange(steps, dtype=float), np.arange(steps) == steps - 1
            demo["states"] = np.zeros((steps, 32))
            demo.attrs["num_samples"], demo.attrs["model_file"] = steps, "<mujoco/>" * 9000
        environment = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}
        data.attrs["total"], data.attrs["env_args"] = 48, json.dumps(environment)
        file["mask/train"] = np.array([f"demo_{i}" for i in range(1, 11)], dtype="S")
        file["mask/valid"] = np.array(["demo_11", "demo_12"], dtype=h5py.string_dtype())
        file["mask/20_percent"] = np.array(["demo_1", "demo_11"], dtype="S")
    return path


@pytest.mark.parametrize("following", [True, False])
def test_demonstrations_are_read_as_robomimic_means_them(tmp_path: Path, following: bool) -> None:
    reader = robomimic.read(demonstrations(tmp_path / "lift.hdf5", following=following))
    assert reader.names == tuple(f"demo_{i}" for i in range(1, 13))
    assert reader.splits == ("train",) * 10 + ("valid",) * 2
    spec = reader.spec
    assert (spec.frame, spec.state, spec.fps, spec.name) == ((8, 10), 5, 20.0, "lift")
    assert spec.space == Space("continuous", 2)
    episode = reader.episode(1)  # demo_2: five steps, so six frames where the last is told
    count = np.arange(5 + following) + 20
    assert episode.frames[:, 0, 0, 0].tolist() == count.tolist()
    assert episode.state.tolist() == [[c, -c, c, c, c] for c in count]  # object before robot0_eef_pos
    assert np.round(episode.actions[:, 0] * 200).tolist() == count[:-1].tolist()
    assert episode.rewards.tolist() == list(range(4 + following))
    check_reader(reader)


def test_what_is_written_is_laid_out_as_robomimic_wants_it(tmp_path: Path) -> None:
    given = Episodes.of(recorded(VECTOR), space=VECTOR, fps=20)
    robomimic.write(given, tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as file:
        demo, first = file["data/demo_0"], given.episode(0)
        assert file["data"].attrs["total"] == 6 + 1 + 4 + 1 + 8 and demo.attrs["num_samples"] == 6
        assert json.loads(file["data"].attrs["env_args"])["env_kwargs"]["control_freq"] == 20
        assert np.array_equal(demo["obs/image"], first.frames[:-1])
        assert np.array_equal(demo["next_obs/image"], first.frames[1:])
        assert np.array_equal(demo["actions"], first.actions) and demo["dones"][:].tolist() == [0, 0, 0, 0, 0, 1]
        assert [n.decode() for n in file["mask/train"]] == ["demo_0", "demo_3"]


def test_the_camera_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = demonstrations(tmp_path / "a.hdf5", cameras=("agentview_image", "wrist_image"))
    with pytest.raises(ValueError, match=r"cameras are \['agentview_image', 'wrist_image'\]. Name one with camera="):
        robomimic.read(path)
    assert robomimic.read(path, camera="wrist_image").spec.frame == (8, 10)
    with pytest.raises(ValueError, match="'front' was asked for"):
        robomimic.read(path, camera="front")


def lost(demo: Any) -> None:
    del demo["obs/object"]


def short(demo: Any) -> None:
    del demo["actions"]
    demo["actions"] = np.zeros((2, 2))


def other(demo: Any) -> None:
    del demo["actions"]
    demo["actions"] = np.zeros((len(demo["dones"]), 3))


def text(demo: Any) -> None:
    del demo["rewards"]
    demo["rewards"] = np.array(["a"] * len(demo["dones"]), dtype="S")


def soft(demo: Any) -> None:
    del demo["obs/object"]
    demo["obs/object"] = h5py.SoftLink("/nowhere")


def circle(demo: Any) -> None:
    del demo["obs/object"]
    demo["obs/object"] = h5py.SoftLink("object")


def unwritten(demo: Any) -> None:
    del demo["actions"]
    demo.create_dataset("actions", shape=(10**12, 2), dtype="f4", chunks=(1000, 2))


def holes(demo: Any) -> None:
    steps = len(demo["dones"])
    del demo["actions"]
    demo.create_dataset("actions", shape=(steps, 2), dtype="f4", chunks=(2, 2))[0] = 1


def bomb(demo: Any) -> None:
    steps = len(demo["dones"])
    del demo["actions"]
    data = demo.create_dataset("actions", shape=(steps, 2), dtype="f4", chunks=(steps, 2), compression="gzip")
    data.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**28))[: 2**18])


def swollen(demo: Any) -> None:
    steps = len(demo["dones"])
    del demo["actions"]
    data = demo.create_dataset("actions", shape=(steps, 2), dtype="f4", chunks=(steps, 2), compression="gzip")
    data.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**19)))


def vast(demo: Any) -> None:
    steps = len(demo["dones"])
    del demo["actions"]
    demo.create_dataset("actions", shape=(steps, 2), dtype="f4", maxshape=(None, None), chunks=(2**14, 2**14))


def compound(demo: Any) -> None:
    del demo["actions"]
    demo["actions"] = np.zeros(len(demo["dones"]), dtype=[("a", "f4"), ("b", "f4")])


def outside(demo: Any) -> None:
    del demo["obs/object"]
    demo["obs/object"] = h5py.ExternalLink("other.hdf5", "/secret")


def stored(demo: Any) -> None:
    steps = len(demo["dones"])
    del demo["actions"]
    demo.create_dataset("actions", shape=(steps, 2), dtype="f8", external=[("other.raw", 0, h5py.h5f.UNLIMITED)])


def virtual(demo: Any) -> None:
    steps = len(demo["dones"])
    del demo["actions"]
    layout = h5py.VirtualLayout(shape=(steps, 2), dtype="f8")
    layout[:] = h5py.VirtualSource("other.hdf5", "secret", shape=(steps, 2))
    demo.create_virtual_dataset("actions", layout)


BREAKS = (
    lost, short, other, text, soft, circle, unwritten, holes, bomb, swollen, vast, compound, outside, stored, virtual
)  # fmt: skip


@pytest.mark.parametrize("broken", BREAKS, ids=lambda f: f.__name__)
def test_one_damaged_demonstration_is_named_and_harms_no_other(tmp_path: Path, broken: Callable[[Any], None]) -> None:
    path = demonstrations(tmp_path / "a.hdf5")
    (tmp_path / "other.raw").write_bytes(bytes(4096))  # what must not be read is there to be read
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["secret"] = np.zeros((5, 2))
    with h5py.File(path, "a") as file:
        broken(file["data/demo_2"])
    episodes = Episodes(robomimic.read(path))
    faults = episodes.damaged()
    assert list(faults) == [1] and "a.hdf5, demo_2" in faults[1] and "\n" not in faults[1]
    good = episodes.select([0, *range(2, 12)])
    assert good.labelled == 4 * 12 - 5 and good.part("valid").lengths.tolist() == [6, 4]
    check_reader(good)


def test_a_soft_link_within_the_file_is_followed(tmp_path: Path) -> None:
    path = demonstrations(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_2/obs/object"]
        file["data/demo_2/obs/object"] = h5py.SoftLink("/data/demo_5/obs/object")
    assert robomimic.read(path).episode(1).state[0].tolist() == [50, -50, 20, 20, 20]


def test_packed_and_plain_rows_are_the_ones_that_h5py_reads(tmp_path: Path) -> None:
    from tacit.data.formats.hdf import rows

    value = np.random.default_rng(0).normal(size=(37, 5, 3)).astype(">f4")
    ways: list[dict[str, Any]] = [{}, {"chunks": (7, 2, 3)}, {"shuffle": True}, {"compression": "lzf"}]
    ways += [{"chunks": (7, 2, 2), "compression": "gzip", "shuffle": True}]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for number, options in enumerate(ways):
            file.create_dataset(str(number), data=value, **options)
    with h5py.File(tmp_path / "a.hdf5") as file:
        for name in "0124":
            for start, stop in ((0, 37), (6, 8), (36, 37), (13, 13)):
                assert np.array_equal(rows(file[name], start, stop=stop), value[start:stop])
        with pytest.raises(Damaged, match="h5repack"):
            rows(file["3"])


def test_a_text_is_no_longer_than_what_lies_there(tmp_path: Path) -> None:
    path = demonstrations(tmp_path / "a.hdf5")
    held = path.read_bytes()
    with h5py.File(path) as file:
        said = len(file["data"].attrs["env_args"])
    at = [i for i in range(len(held)) if held.startswith(said.to_bytes(4, "little"), i)]
    places = [i for i in at if held[int.from_bytes(held[i + 4 : i + 12], "little") :][:4] == b"GCOL"]
    assert len(places) == 1  # the one reference into the heap
    path.write_bytes(held[: places[0]] + b"\xff" * 4 + held[places[0] + 4 :])
    with pytest.raises(Damaged, match="refers to 4294967295 bytes"):
        robomimic.read(path)


def test_a_file_cut_or_of_another_kind_is_an_error_of_one_line(tmp_path: Path) -> None:
    whole = demonstrations(tmp_path / "a.hdf5").read_bytes()
    cut = tmp_path / "cut.hdf5"
    for share in range(20):
        cut.write_bytes(whole[: len(whole) * share // 20])
        with pytest.raises(Damaged, match="cut.hdf5") as caught:
            robomimic.read(cut)
        assert "\n" not in str(caught.value) and not robomimic.recognises(cut)
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["x"] = np.zeros(3)
    assert not robomimic.recognises(tmp_path / "b.hdf5") and not robomimic.recognises(tmp_path)
    with pytest.raises(Damaged, match="data is missing"):
        robomimic.read(tmp_path / "b.hdf5")
    with pytest.raises(FileNotFoundError):
        robomimic.read(tmp_path / "none.hdf5")
