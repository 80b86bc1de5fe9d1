"""Attention: equal to torch's own, blind to the future, to other frames and places, and to what is only padding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tacit.part import Part
from tacit.parts import attention
from tacit.parts.attention import Attention, Block, Causal, Queries, SpaceTime, Stack, aware, turned

DIM, HEADS = 16, 4


def lent(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    """Give torch's attention the weights of ours."""
    with torch.no_grad():
        if theirs.in_proj_weight is not None:
            theirs.in_proj_weight.copy_(torch.cat([ours.ask.weight, ours.tell.weight]))
        else:
            for part, weight in zip("qkv", (ours.ask.weight, *ours.tell.weight.chunk(2)), strict=True):
                getattr(theirs, f"{part}_proj_weight").copy_(weight)
        theirs.in_proj_bias.copy_(torch.cat([ours.ask.bias, ours.tell.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())


def unlike(part: nn.Module) -> None:
    """Draw every weight anew, norms too: what starts at one or zero hides a swap."""
    for weight in part.parameters():
        nn.init.normal_(weight, std=0.3)


# -- as torch does it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [None, 10])
def test_attention_equals_torchs(others: int | None) -> None:
    ours = Attention(DIM, heads=HEADS, others=others).double()
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True, kdim=others, vdim=others).double()
    unlike(ours)
    lent(ours, theirs)
    x = torch.randn(3, 5, DIM).double()
    y = x if others is None else torch.randn(3, 7, others).double()
    known = torch.rand(3, y.shape[1]) < 0.6
    known[:, 0] = True
    for mask, padding in ((None, None), (aware(known), ~known)):
        wanted = theirs(x, y, y, key_padding_mask=padding, need_weights=False)[0]
        torch.testing.assert_close(ours(x, None if others is None else y, mask=mask), wanted)
    if others is None:
        wanted = theirs(x, x, x, attn_mask=nn.Transformer.generate_square_subsequent_mask(5).double(), is_causal=True)
        torch.testing.assert_close(ours(x, causal=True), wanted[0])


def test_a_block_equals_torchs_encoder_layer() -> None:
    ours = Block(DIM, heads=HEADS).double()
    theirs = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, 0.0, "gelu", batch_first=True, norm_first=True).double()
    unlike(ours)
    assert ours.attend is not None and ours.calm is not None
    lent(ours.attend, theirs.self_attn)
    theirs.norm1.load_state_dict(ours.calm.state_dict())
    for mine, its in zip((0, 1, 3), (theirs.norm2, theirs.linear1, theirs.linear2), strict=True):
        its.load_state_dict(ours.think[mine].state_dict())
    x = torch.randn(3, 5, DIM).double()
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_block_that_hears_others_equals_torchs_decoder_layer() -> None:
    ours = Block(DIM, heads=HEADS, others=DIM).double()
    theirs = nn.TransformerDecoderLayer(DIM, HEADS, 4 * DIM, 0.0, "gelu", batch_first=True, norm_first=True).double()
    unlike(ours)
    assert ours.attend is not None and ours.calm is not None and ours.listen is not None and ours.still is not None
    lent(ours.attend, theirs.self_attn)
    lent(ours.listen, theirs.multihead_attn)
    for mine, its in (
        (ours.calm, theirs.norm1),
        (ours.still, theirs.norm2),
        (ours.think[0], theirs.norm3),
        (ours.think[1], theirs.linear1),
        (ours.think[3], theirs.linear2),
    ):
        its.load_state_dict(mine.state_dict())
    x, y = torch.randn(3, 5, DIM).double(), torch.randn(3, 4, DIM).double()
    torch.testing.assert_close(ours(x, y), theirs(x, y))


def test_more_rows_than_a_kernel_takes_come_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    part, x, known = Attention(DIM, heads=HEADS), torch.randn(7, 5, DIM), torch.rand(7, 5) < 0.7
    known[:, 0] = True
    masks = (None, aware(known), torch.ones(5, 5, dtype=torch.bool).tril()[None, None])
    whole = [part(x, mask=mask) for mask in masks]
    monkeypatch.setattr(attention, "ROWS", 3)
    for mask, wanted in zip(masks, whole, strict=True):
        torch.testing.assert_close(part(x, mask=mask), wanted)
    assert part(x[:0]).shape == (0, 5, DIM)


# -- time ----------------------------------------------------------------------------------------------------------


def test_what_is_turned_tells_only_how_far_apart_it_is() -> None:
    q, k = torch.randn(8).double().expand(9, -1), torch.randn(8).double().expand(9, -1)
    products = turned(q) @ turned(k).T
    for gap in range(-8, 9):
        torch.testing.assert_close(
            products.diagonal(gap), products.diagonal(gap)[:1].expand(9 - abs(gap)), rtol=1e-5, atol=1e-5
        )
    assert products.diagonal(1)[0] != products.diagonal(2)[0] and products.diagonal(1)[0] != products.diagonal(-1)[0]
    torch.testing.assert_close(products.diagonal(), (q * k).sum(-1), rtol=1e-5, atol=1e-5)


CLIPS: dict[str, Callable[[], tuple[Callable[[Tensor], Tensor], tuple[int, ...]]]] = {
    "causal": lambda: (Causal(dim=DIM, layers=2, heads=HEADS), (DIM,)),
    "causal, near": lambda: (Causal(dim=DIM, layers=2, heads=HEADS, reach=2), (DIM,)),
    "space and time": lambda: (SpaceTime(dim=DIM, layers=2, heads=HEADS), (6, DIM)),
    "with extra tokens": lambda: (SpaceTime(dim=DIM, layers=2, heads=HEADS, extra=2), (6, DIM)),
    "told something": lambda: (told_something(), (6, DIM)),
}


def told_something() -> Callable[[Tensor], Tensor]:
    part, told = SpaceTime(dim=DIM, layers=2, heads=HEADS, extra=1), torch.randn(3, 4, DIM)
    known = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    return lambda x: part(x, told=told, known=known)


@pytest.mark.parametrize("frame", range(5))
@pytest.mark.parametrize("kind", CLIPS)
def test_a_frame_is_heard_from_its_own_time_on_and_never_before(kind: str, frame: int) -> None:
    part, shape = CLIPS[kind]()
    x = torch.randn(3, 5, *shape)
    other = x.clone()
    other[:, frame] = torch.randn(3, *shape)
    moved = (part(other) - part(x)).abs().flatten(2).amax((0, 2))
    assert (moved[:frame] == 0).all() and moved[frame] > 1e-3
    heard = moved[frame:] if kind != "causal, near" else moved[frame : frame + 5]
    assert (heard > 1e-6).all()


def test_a_stretch_says_the_same_wherever_it_is_cut() -> None:
    episode = torch.randn(2, 20, DIM).double()
    part = Causal(dim=DIM, layers=3, heads=HEADS, reach=2).double()
    whole = part(episode)
    for end in (7, 12, 20):
        torch.testing.assert_close(part(episode[:, end - 7 : end])[:, -1], whole[:, end - 1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(part(episode[:, 6:12])[:, -1], whole[:, 11], atol=1e-6)  # six are one too few


def test_moments_in_another_order_are_another_story() -> None:
    x = torch.randn(2, 5, DIM)
    back = x[:, [2, 0, 3, 1, 4]]
    for kind in ("causal", "space and time"):
        part, shape = CLIPS[kind]()
        here, there = (part(y.view(2, 5, *[1] * (len(shape) - 1), DIM))[:, -1] for y in (x, back))
        assert (here - there).abs().max() > 1e-4


# -- space ---------------------------------------------------------------------------------------------------------


class Muddled(Attention):
    """The fault that this file is to catch: the heads are joined without being moved back."""

    def forward(self, x: Tensor, others: Tensor | None = None, **kind: object) -> Tensor:
        q, (k, v) = self._parted(self.ask(x)), map(self._parted, self.tell(x).chunk(2, -1))
        mask = None
        if kind.get("causal"):
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(x.shape))


def mixed(part: SpaceTime, *, only: str, at: tuple[int, int] = (2, 3)) -> Tensor:
    """Which tokens (T, L) of a clip move with one of them, when only one kind of attention is let through."""
    for block in part.blocks:
        nn.init.zeros_(getattr(block, "time" if only == "space" else "space").out.weight)
    x = torch.randn(2, 5, 6, DIM)
    other = x.clone()
    other[1][at] = torch.randn(DIM)
    moved = (part(other) - part(x)).abs().amax(-1)
    assert (moved[0] == 0).all()  # another clip
    return moved[1] > 1e-7


def test_space_stays_in_its_frame_and_time_in_its_place() -> None:
    space, time = (mixed(SpaceTime(dim=DIM, layers=2, heads=HEADS), only=kind) for kind in ("space", "time"))
    assert space[2].all() and not space[[0, 1, 3, 4]].any()
    assert time[2:, 3].all() and time.sum() == 3
    part = SpaceTime(dim=DIM, layers=1, heads=HEADS)
    x = torch.randn(2, 5, 6, DIM)
    other = x.clone()
    other[1, 2, 3] = torch.randn(DIM)
    assert ((part(other) - part(x))[1].abs().amax(-1)[2:] > 1e-7).all()  # and together they reach all that comes after


def test_heads_that_are_not_moved_back_are_seen() -> None:
    part = SpaceTime(dim=DIM, layers=1, heads=HEADS)
    part.blocks[0].time = Muddled(DIM, heads=HEADS, timed=True)
    assert mixed(part, only="time")[:2].any()  # the past moves with the future
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    ours = Muddled(DIM, heads=HEADS)
    lent(ours, theirs)
    x = torch.randn(2, 5, DIM)
    assert not torch.allclose(ours(x), theirs(x, x, x)[0], atol=1e-3)


def test_tokens_without_places_are_a_set() -> None:
    order = torch.randperm(6)
    x, y = torch.randn(2, 6, DIM).double(), torch.randn(2, 5, DIM).double()
    stack = Stack(DIM, layers=2, heads=HEADS, others=DIM).double()
    torch.testing.assert_close(stack(x[:, order], y), stack(x, y)[:, order])
    torch.testing.assert_close(stack(x, y[:, torch.randperm(5)]), stack(x, y))
    clip, part = torch.randn(2, 3, 6, DIM).double(), SpaceTime(dim=DIM, layers=2, heads=HEADS).double()
    torch.testing.assert_close(part(clip[:, :, order]), part(clip)[:, :, order])
    asked = Queries(features=DIM, dim=8, queries=3).double()
    torch.testing.assert_close(asked(x[:, order]), asked(x))


# -- what is said beside the tokens --------------------------------------------------------------------------------


def test_padding_is_not_heard_and_every_clip_has_its_own() -> None:
    part = SpaceTime(dim=DIM, layers=2, heads=HEADS, extra=1)
    x, told = torch.randn(3, 4, 6, DIM), torch.randn(3, 5, DIM)
    lengths = torch.tensor([5, 2, 0])
    known = torch.arange(5) < lengths[:, None]
    padded = torch.where(known[..., None], told, 1e3 * torch.randn(3, 5, DIM))
    here = part(x, told=told, known=known)
    assert torch.equal(part(x, told=padded, known=known), here)
    for row, length in enumerate(lengths.tolist()):  # as if only this clip were there, with only what it is told
        alone = part(x[row : row + 1], told=told[row : row + 1, :length])
        torch.testing.assert_close(here[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    assert (part(x, told=told) - here).abs().amax((1, 2, 3))[1:].min() > 1e-3  # and it would else be heard
    assert here.shape == (3, 4, 7, DIM)


def test_what_is_added_is_heard_from_its_frame_on() -> None:
    part, x, added = SpaceTime(dim=DIM, layers=1, heads=HEADS), torch.randn(2, 4, 6, DIM), torch.randn(2, 4, DIM)
    torch.testing.assert_close(part(x, added=added), part(x + added[:, :, None]))
    other = added.clone()
    other[:, 2] = torch.randn(2, DIM)
    moved = (part(x, added=other) - part(x, added=added)).abs().amax((0, 3))
    assert (moved[:2] == 0).all() and (moved[2:] > 1e-4).all()


def test_extra_tokens_gather_the_frames_up_to_theirs() -> None:
    part = SpaceTime(dim=DIM, layers=1, heads=HEADS, extra=2)
    x = torch.randn(2, 4, 6, DIM)
    here = part(x)[:, :, 6:]
    for place in range(6):
        other = x.clone()
        other[:, 1, place] = torch.randn(2, DIM)
        moved = (part(other)[:, :, 6:] - here).abs().amax((0, 3))
        assert (moved[0] == 0).all() and (moved[1:] > 1e-6).all()


def test_queries_hear_each_frame_as_itself_and_nothing_unknown() -> None:
    part = Queries(features=6, dim=8, queries=3, frames=2, layers=2)
    x = torch.randn(4, 2, 5, 6)
    nn.init.normal_(part.when)
    assert part(x).shape == (4, 24)
    assert (part(x.flip(1)) - part(x)).abs().max() > 1e-4  # then and now is not now and then
    known = torch.rand(4, 2, 5) < 0.5
    known[:, 0, 0] = True
    other = torch.where(known[..., None], x, torch.randn(4, 2, 5, 6))
    torch.testing.assert_close(part(other, known=known), part(x, known=known))
    assert (part(other) - part(x)).abs().amax(1).min() > 1e-4
    three = part(x).view(4, 3, 8)
    assert (three[:, 0] - three[:, 1]).abs().max() > 1e-4  # questions differ


def test_one_query_over_equal_tokens_is_one_of_them() -> None:
    part = Queries(features=6, dim=8, queries=1)
    token = torch.randn(4, 1, 6)
    torch.testing.assert_close(part(token.expand(-1, 7, -1)), part(token))


# -- as parts ------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], tuple[Part, Tensor]]] = {
    "causal": lambda: (Causal(dim=DIM, layers=2, heads=HEADS, reach=3), torch.randn(2, 4, DIM)),
    "space and time": lambda: (SpaceTime(dim=DIM, layers=2, heads=HEADS, extra=2), torch.randn(2, 4, 6, DIM)),
    "queries": lambda: (Queries(features=DIM, dim=8, layers=2, frames=2), torch.randn(2, 2, 6, DIM)),
}


@pytest.mark.parametrize("kind", PARTS)
def test_every_weight_learns_and_what_is_saved_says_the_same(kind: str, tmp_path: Path) -> None:
    part, x = PARTS[kind]()
    said = part(x)
    (said * torch.randn_like(said)).sum().backward()
    assert [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert torch.equal(type(part).load(part.save(tmp_path))(x), said)


@pytest.mark.parametrize("kind", PARTS)
def test_half_precision_says_nearly_the_same(kind: str) -> None:
    part, x = PARTS[kind]()
    with torch.autocast("cpu", torch.bfloat16):
        half = part(x)
    half.float().sum().backward()
    assert (half.float() - part(x)).abs().max() < 0.15  # after a norm: numbers of about one, in eight bits
    assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())


@pytest.mark.parametrize("kind", PARTS)
def test_it_compiles_in_one_piece(kind: str) -> None:
    part, x = PARTS[kind]()
    torch.testing.assert_close(torch.compile(part, fullgraph=True, backend="aot_eager")(x), part(x))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="16 numbers a token do not part into 3 heads"):
        Attention(16, heads=3)
    with pytest.raises(ValueError, match="an even number of them each"):
        Causal(dim=12, heads=4)
    with pytest.raises(
        ValueError, match=r"Moments of shape \(2, 3, 4, 8\) were given where \(any, any, 8\) was wanted"
    ):
        Causal(dim=8, heads=2)(torch.randn(2, 3, 4, 8))
    with pytest.raises(ValueError, match="What is added to frames"):
        SpaceTime(dim=8, heads=2)(torch.randn(2, 3, 4, 8), added=torch.randn(2, 2, 8))
    with pytest.raises(ValueError, match="Tokens of shape"):
        Queries(features=8, dim=8, frames=2)(torch.randn(2, 3, 4, 8))
