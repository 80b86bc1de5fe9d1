"""Clips: windows inside one episode, batches equal to plain slicing, an order decided by (seed, step) alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tacit.clip import Clip, Episode, Space
from tacit.data import clips as module
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.data.reader import Reader

FIVE = Space("discrete", 5)


def recorded(length: int, number: int) -> Episode:
    """Every column says which episode and which frame it belongs to."""
    count = np.arange(length)
    frames = np.zeros((length, 4, 6, 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 1, 2, 1], frames[:, 3, 5, 2] = number, count, 7
    return Episode(
        frames=frames,
        state=np.stack([np.full(length, number), count], 1).astype(np.float32),
        actions=(number + count[:-1]) % 5,
        latents=np.stack([np.full(length - 1, number), count[:-1]], 1).astype(np.float32),
        rewards=count[:-1].astype(np.float32),
        text=f"task {number}",
    )


def several(lengths: list[int]) -> Episodes:
    return Episodes.of([recorded(n, i) for i, n in enumerate(lengths)], space=FIVE)


def faults(clips: Clips, episodes: Episodes, *, gap: int = 1) -> int:
    """How many windows are not a stretch of one episode with every column in step: the check, and not only of ours."""
    clip = clips.batch(np.arange(len(clips)))
    assert clip.state is not None
    wrong = 0
    for row in range(len(clip)):
        number, start = int(clip.state[row, 0, 0]), int(clip.state[row, 0, 1])
        wrong += not same(clip[row : row + 1], episodes.episode(number), start=start, gap=gap)
    return wrong


def same(clip: Clip, episode: Episode, *, start: int, gap: int) -> bool:
    span = slice(start, start + (clip.time - 1) * gap + 1, gap)
    between = slice(start, start + clip.time - 1)
    if span.stop > len(episode):
        return False
    assert clip.frames is not None
    assert clip.ends is not None
    pairs = [(clip.frames[0].permute(0, 2, 3, 1), episode.frames[span]), (clip.state[0], episode.state[span])]  # type: ignore[index]
    if gap == 1:
        pairs += [(getattr(clip, n)[0], getattr(episode, n)[between]) for n in ("actions", "latents", "rewards")]
    equal = all(np.array_equal(a.numpy(), b) for a, b in pairs)
    return equal and bool(clip.ends[0]) == (span.stop == len(episode)) and clip.text == (episode.text,)


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@given(LENGTHS, st.integers(1, 8), st.integers(1, 4), st.integers(1, 4))
def test_no_window_crosses_an_episode_and_none_is_missing(
    lengths: list[int], length: int, stride: int, gap: int
) -> None:
    made, span = several(lengths), (length - 1) * gap + 1
    want = sum(len(range(0, n - span + 1, stride)) for n in lengths)
    if not want:
        with pytest.raises(ValueError, match=f"No episode holds a clip of {span} frames; the longest"):
            made.clips(length, stride=stride, gap=gap)
        return
    clips = made.clips(length, stride=stride, gap=gap)
    assert len(clips) == want
    assert faults(clips, made, gap=gap) == 0


class Seamless(Reader):
    """The planted mistake: a reader that gives all its episodes as one, so that windows run over their ends."""

    def __init__(self, inner: Episodes) -> None:
        self.inner, self.spec = inner, inner.spec
        self.lengths = np.array([inner.lengths.sum()])

    def episode(self, number: int) -> Episode:
        parts = [self.inner.episode(i) for i in range(len(self.inner))]
        blank = {n: self.spec.blank(n, 1) for n in ("actions", "latents", "rewards")}
        joined = {n: np.concatenate([x for p in parts for x in (getattr(p, n), b)])[:-1] for n, b in blank.items()}
        pictures = {n: np.concatenate([getattr(p, n) for p in parts]) for n in ("frames", "state")}
        return Episode(**joined, **pictures, text=parts[0].text)


def test_windows_over_episode_ends_would_be_caught() -> None:
    made = several([9, 8, 7])
    assert faults(made.clips(4), made) == 0
    assert faults(Episodes(Seamless(made)).clips(4), made) >= 2 * 3


def test_clamped_pairs_would_be_caught() -> None:
    """The planted mistake: a window at the end that takes the last frame twice, so that it is its own successor."""
    made = several([6, 5])
    clips = made.clips(2)
    clips.gap = 0
    assert faults(clips, made) == len(clips)


def test_shifted_labels_would_be_caught() -> None:
    made = several([9, 8])
    clips = made.clips(3)
    clips._columns["actions"] = np.roll(clips._columns["actions"], 1)
    assert faults(clips, made) == len(clips)


@given(LENGTHS, st.integers(0, 50))
def test_the_mask_is_true_where_a_label_was_kept(lengths: list[int], count: int) -> None:
    made = several([*lengths, 3])
    kept = made.keep_labels(min(count, made.labelled))
    clip = kept.clips(2).batch(np.arange(len(kept.clips(2))))
    assert clip.mask is not None
    assert clip.actions is not None
    assert int(clip.mask.sum()) == kept.labelled
    assert ((clip.actions >= 0) == clip.mask).all()


def test_what_is_absent_is_none() -> None:
    bare = Episodes.of([Episode(frames=recorded(5, 0).frames)]).clips(3).batch([0])
    assert (bare.state, bare.actions, bare.latents, bare.rewards, bare.text, bare.mask) == (None,) * 6
    skipping = several([9]).clips(3, gap=2).batch([0])
    assert (skipping.actions, skipping.latents, skipping.rewards, skipping.mask) == (None,) * 4
    only = Episodes.of([Episode(state=recorded(5, 0).state)]).clips(3).batch([0, 1])
    assert only.frames is None
    assert only.state is not None
    assert only.state.shape == (2, 3, 2)


def test_frames_are_bytes_and_channels_last_without_a_copy() -> None:
    frames = several([9]).clips(3).batch([0, 4]).frames
    assert frames is not None
    assert (frames.shape, frames.dtype) == ((2, 3, 3, 4, 6), torch.uint8)
    flat = frames.reshape(6, 3, 4, 6)
    assert flat.is_contiguous(memory_format=torch.channels_last)
    assert flat.data_ptr() == frames.data_ptr()


@pytest.mark.parametrize("odd", [{"length": 0}, {"stride": 0}, {"gap": 0}, {"labelled": 1.5}])
def test_impossible_clips_are_refused(odd: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        several([9]).clips(**({"length": 2} | odd))  # type: ignore[arg-type]


# -- the order ----------------------------------------------------------------------------------------------------


def equal(one: Clip, two: Clip) -> bool:
    pairs = [
        (getattr(one, n), getattr(two, n)) for n in ("frames", "state", "actions", "latents", "rewards", "mask", "ends")
    ]
    return one.text == two.text and all(
        a is b or torch.equal(torch.nan_to_num(a.float()), torch.nan_to_num(b.float())) for a, b in pairs
    )


def take(stream: Iterator[Clip], count: int) -> list[Clip]:
    return list(itertools.islice(stream, count))


@given(st.integers(1, 9), st.integers(0, 12), st.integers(0, 3), st.sampled_from([0.0, 0.5]))
def test_starting_later_equals_skipping(batch: int, start: int, ahead: int, labelled: float) -> None:
    clips = several([9, 8, 4]).keep_labels(5).clips(3, labelled=labelled)
    whole = take(clips.stream(batch, seed=3, ahead=0), start + 3)
    later = take(clips.stream(batch, seed=3, start=start, ahead=ahead), 3)
    assert all(equal(a, b) for a, b in zip(whole[start:], later, strict=True))


@pytest.mark.parametrize("block", [4, 7, 2**20])
def test_every_epoch_holds_every_window_once_each_time_in_another_order(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    clips = several([19, 13]).clips(3)
    rows = np.concatenate([clips.draw(s, 4, seed=1) for s in range(3 * len(clips) // 4)])
    epochs = rows[: len(clips) * (len(rows) // len(clips))].reshape(-1, len(clips))
    assert len(epochs) == 3
    assert all(sorted(e) == list(range(len(clips))) for e in epochs.tolist())
    assert len({tuple(e) for e in epochs.tolist()}) == 3
    assert (np.concatenate([clips.draw(s, 4, seed=2) for s in range(21)]) != rows[:84]).any()


def test_blocks_mix_the_whole_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the block, a batch comes from everywhere: not from one corner of a sorted set."""
    monkeypatch.setattr(module, "BLOCK", 64)
    clips = several([200] * 10).clips(2)
    owners = [len(set(clips.episodes[clips.draw(s, 32)])) for s in range(20)]
    assert min(owners) >= 7


def test_windows_are_drawn_evenly() -> None:
    clips = several([11, 12]).clips(2)
    seen = np.bincount(np.concatenate([clips.draw(s, 64) for s in range(210)]), minlength=len(clips))
    assert seen.min() == seen.max() == 640
    first = np.bincount([clips.draw(0, 1, seed=s)[0] for s in range(2100)], minlength=len(clips))
    assert 60 < first.min() <= first.max() < 150


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9), st.sampled_from([0.0, 0.5, 1.0]))
def test_ranks_share_one_batch(world: int, each: int, step: int, labelled: float) -> None:
    clips = several([30, 20]).keep_labels(9).clips(3, labelled=labelled)
    whole = clips.draw(step, world * each, seed=1)
    parts = [clips.draw(step, world * each, seed=1, rank=r, world=world) for r in range(world)]
    assert all(len(p) == each for p in parts)
    assert sorted(np.concatenate(parts)) == sorted(whole)


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 3"):
        several([30]).clips(3).draw(0, 32, world=3)


@pytest.mark.parametrize(("share", "batch", "least"), [(0.5, 16, 8), (1.0, 10, 10), (0.01, 16, 1)])
def test_that_share_of_a_batch_holds_labels(share: float, batch: int, least: int) -> None:
    kept = several([60] * 10).keep_labels(40)
    clips = kept.clips(3, labelled=share)
    for clip in take(clips.stream(batch), 12):
        assert clip.mask is not None
        assert int(clip.mask.any(1).sum()) >= least
    clip = clips.batch(np.arange(len(clips)))
    assert clip.mask is not None
    assert clips.labelled.tolist() == np.flatnonzero(clip.mask.any(1)).tolist()
    drawn = np.concatenate([clips.draw(s, batch) for s in range(40)])
    assert set(clips.labelled) <= set(drawn) or share < 0.5
    if share == 1:
        assert set(drawn) == set(clips.labelled)


def test_a_share_of_no_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="keep_labels"):
        several([9]).unlabelled().clips(3, labelled=0.5)


def test_the_fingerprint_is_of_all_that_decides_the_clips() -> None:
    made = several([9, 8, 4]).keep_labels(6)
    drawn = [made.clips(2), made.clips(3), made.clips(2, stride=2), made.clips(2, gap=2), made.clips(2, labelled=0.5)]
    assert len({c.fingerprint for c in [*drawn, made.unlabelled().clips(2)]}) == 6
    assert made.clips(2, labelled=0, device="cpu").fingerprint == drawn[0].fingerprint


# -- where the columns lie ----------------------------------------------------------------------------------------


def test_columns_on_a_device_give_the_same_batches() -> None:
    made = several([9, 8, 4]).keep_labels(6)
    host, there = made.clips(3, labelled=0.5), made.clips(3, labelled=0.5, device="cpu")
    assert (host.device, there.device) == (None, torch.device("cpu"))
    assert all(equal(a, b) for a, b in zip(take(host.stream(4), 9), take(there.stream(4), 9), strict=True))
    assert faults(several([9, 8, 4]).clips(3, device="cpu"), several([9, 8, 4])) == 0


def test_joined_and_selected_sets_give_the_same_batches() -> None:
    whole = several([9, 8, 4, 7])
    halves = [Episodes.of([recorded(n, i)], space=FIVE) for i, n in enumerate([9, 8, 4, 7])]
    joined = halves[0] + halves[1] + halves[2] + halves[3]
    for view in (joined, joined.select([3, 1, 0, 2])):
        assert faults(view.clips(3), whole) == 0
        assert faults(view.clips(3, device="cpu"), whole) == 0
    shuffled = whole.select([2, 0])
    assert faults(shuffled.clips(3), whole) == 0
    assert len(shuffled.clips(3)) == 7 + 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_columns_on_the_gpu_give_the_same_batches() -> None:
    made = several([9, 8, 4]).keep_labels(6)
    host, there = made.clips(3, labelled=0.5), made.clips(3, labelled=0.5, device="cuda")
    assert there.batch([0]).device.type == "cuda"
    assert all(equal(a, b.to("cpu")) for a, b in zip(take(host.stream(4), 9), take(there.stream(4), 9), strict=True))


def test_a_batch_costs_hardly_more_than_copying_its_bytes() -> None:
    """The promise is within twice a bare gather, held in `make bench`; here, beside other tests, within four times."""
    frames = np.random.default_rng(0).integers(0, 256, (4000, 64, 64, 3), dtype=np.uint8)
    made = Episodes.of([Episode(frames=f) for f in np.split(frames, 40)])
    clips = made.clips(3)
    (flat,) = made.reader.flat("frames")
    ours, bare = [], []
    for step in range(40):
        began = time.perf_counter()
        clips.batch(clips.draw(step, 64))
        ours.append(time.perf_counter() - began)
        at = clips._places[clips.draw(step, 64)][:, None] + np.arange(3)
        began = time.perf_counter()
        flat[at]
        bare.append(time.perf_counter() - began)
    assert min(ours) < 4 * min(bare)


# -- sources in balance --------------------------------------------------------------------------------------------


def unequal(*lengths: int) -> Episodes:
    """One source of each length, windows of one frame, so that a source has as many windows as frames."""
    recordings = [recorded(n, i) for i, n in enumerate(lengths)]
    return Episodes.of([r.replace(source=f"{len(r)} long") for r in recordings], space=FIVE)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5), st.sampled_from([0.0, 0.43, 0.9]))
def test_a_source_is_drawn_as_often_as_its_size_to_that_power(lengths: list[int], balance: float) -> None:
    made = unequal(*lengths)
    clips = made.clips(1, balance=balance)
    weights: dict[str, float] = {}
    for length in lengths:  # episodes of one length are one source
        weights[f"{length} long"] = weights.get(f"{length} long", 0) + length
    shares = {name: size**balance for name, size in weights.items()}
    for step in range(3):
        drawn = [made.sources[i] for i in clips.episodes[clips.draw(step, 200, seed=step)]]
        for name, share in shares.items():
            assert abs(drawn.count(name) - 200 * share / sum(shares.values())) < 2


def test_within_a_source_every_window_is_as_likely() -> None:
    clips = unequal(20, 5).clips(1, balance=0.5)
    seen = np.bincount(np.concatenate([clips.draw(s, 30) for s in range(600)]), minlength=25)
    assert seen[:20] == pytest.approx(600, rel=0.15)  # 20 windows share two thirds of 18,000, 5 the rest
    assert seen[20:] == pytest.approx(1200, rel=0.15)


@given(st.integers(1, 9), st.integers(0, 12), st.sampled_from([0.0, 0.5]), st.integers(1, 3))
def test_balanced_clips_go_on_anywhere_and_are_shared_by_ranks(
    batch: int, start: int, labelled: float, world: int
) -> None:
    clips = unequal(9, 8, 4).keep_labels(5).clips(3, labelled=labelled, balance=0.43)
    whole = take(clips.stream(batch, seed=3, ahead=0), start + 2)
    later = take(clips.stream(batch, seed=3, start=start), 2)
    assert all(equal(a, b) for a, b in zip(whole[start:], later, strict=True))
    mine = [clips.draw(start, batch * world, seed=3, rank=r, world=world) for r in range(world)]
    assert sorted(np.concatenate(mine)) == sorted(clips.draw(start, batch * world, seed=3))
    assert (clips.draw(0, 64, seed=3) != clips.draw(1, 64, seed=3)).any()


def test_balanced_batches_hold_their_share_of_labels() -> None:
    clips = unequal(60, 30, 9).keep_labels(20).clips(3, labelled=0.5, balance=0.0)
    assert all(np.isin(clips.draw(s, 16), clips.labelled).sum() >= 8 for s in range(20))


def test_where_nothing_is_balanced_all_is_as_it_was() -> None:
    """The very windows, and the very fingerprint, that runs of before this knob were begun with."""
    made = unequal(9, 8, 4)
    plain, said = made.clips(3), made.clips(3, balance=1.0)
    assert plain.fingerprint == said.fingerprint != made.clips(3, balance=0.5).fingerprint
    assert "balance" not in plain.fingerprint
    assert [plain.draw(s, 7, seed=2).tolist() for s in range(2)] == [said.draw(s, 7, seed=2).tolist() for s in range(2)]
    assert plain.draw(0, 7, seed=2).tolist() == [9, 6, 13, 14, 4, 8, 7]


def test_an_impossible_balance_is_refused() -> None:
    with pytest.raises(ValueError, match="a power in"):
        several([9]).clips(2, balance=1.5)
    with pytest.raises(ValueError, match="no balance"):
        several([9]).streamed().clips(2, balance=0.5)
