"""The U-Net: its short cut equals the plain writing, every weight learns, and any frame comes back at its own size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.parts.unet import UNet, _Shown, _Way

FRAMES = [(64, 64), (32, 32), (56, 56), (84, 84), (48, 64), (7, 5), (2, 2), (1, 6)]


def inputs(net: UNet, batch: int = 2) -> tuple[Tensor, Tensor]:
    dtype = net.last.weight.dtype
    return torch.rand(batch, net.channels, *net.frame, dtype=dtype) - 0.5, torch.randn(batch, net.dim, dtype=dtype)


def plain(net: UNet, frames: Tensor, z: Tensor) -> Tensor:
    """The same network as one would write it down: the latent spread over all pixels and concatenated."""
    x = torch.cat([frames, z[:, :, None, None].expand(-1, -1, *net.frame)], 1)
    x = F.relu(F.conv2d(x, net.first.weight, net.first.bias, net.first.stride, net.first.padding))
    maps = [x]
    for down in net.downs:
        maps.append(F.relu(down(maps[-1])))
    x, skips = maps[-1], [*maps[:-1], z[:, :, None, None]]
    for up, skip in zip(net.ups, reversed(skips), strict=True):
        x = F.relu(up(torch.cat([x, skip], 1)))
    return torch.tanh(net.last(torch.cat([x, frames], 1))) / 2


@pytest.mark.parametrize("frame", FRAMES)
def test_equals_the_plain_writing_and_so_do_its_gradients(frame: tuple[int, int]) -> None:
    net = UNet(channels=6, frame=frame, base=4, dim=5).double()
    nn.init.normal_(net.last.weight, std=0.1)
    frames, z = inputs(net)
    z.requires_grad_()
    wanted = net.first.weight, z
    ours, theirs = net(frames, z), plain(net, frames, z)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert ours.shape == (2, 3, *frame) and ours.abs().max() <= 0.5
    pull = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, wanted, pull), torch.autograd.grad(theirs, wanted, pull), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_a_border_forgotten_is_seen() -> None:
    """The check above can fail: the latent's share without the border's correction is another network."""
    net = UNet(channels=6, frame=(16, 16), base=4, dim=5).double()
    frames, z = inputs(net)
    whole = [([0, 1, 2, 3], 8)]
    net.first.rows, net.first.columns = whole, whole
    assert (net(frames, z) - plain(net, frames, z)).abs().max() > 1e-6


@pytest.mark.parametrize("size", range(1, 70))
def test_taps_are_those_inside_the_map(size: int) -> None:
    way = _Way.of((size, 2))
    runs = way.taps(0)
    assert sum(count for _, count in runs) == way.small[0]
    inside = F.conv1d(torch.ones(1, 1, size), torch.ones(1, 1, way.kernel[0]), stride=way.stride[0], padding=way.pad[0])
    counted = [len(taps) for taps, count in runs for _ in range(count)]
    assert counted == inside.flatten().long().tolist()


def test_only_a_handful_of_numbers_are_spread() -> None:
    first = _Shown(6, 5, 4, way=_Way.of((64, 64)))
    assert [count for _, count in first.rows] == [1, 30, 1]


@pytest.mark.parametrize(("frame", "blocks"), [((64, 64), 6), ((32, 32), 5), ((56, 56), 5), ((48, 64), 6), ((2, 2), 1)])
def test_halves_down_to_one_cell(frame: tuple[int, int], blocks: int) -> None:
    net = UNet(channels=3, frame=frame, base=2, dim=4)
    assert len(net.ups) == blocks == len(net.downs) + 1
    innermost: list[torch.Size] = []
    net.ups[0].register_forward_hook(lambda _, given, __: innermost.append(given[0].shape))
    net(*inputs(net))
    assert innermost[0][2:] == (1, 1) and innermost[0][1] == 2 * 2 ** (blocks - 1) + 4


def test_every_weight_learns_and_every_tap_of_it() -> None:
    net = UNet(channels=6, frame=(64, 64), base=8, dim=16)
    frames, z = inputs(net, 4)
    z.requires_grad_()
    out = net(frames, z)
    (out * torch.randn_like(out)).sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.any(), name
        if p.ndim == 4:
            assert p.grad.abs().sum((0, 1)).all(), f"{name} has a tap that only ever sees padding"
    assert z.grad is not None and z.grad.any()


def test_the_latent_and_the_frames_both_matter() -> None:
    net = UNet(channels=6, frame=(32, 32), base=8, dim=16)
    frames, z = inputs(net)
    out = net(frames, z)
    assert (net(frames, z.flip(0)) - out).abs().max() > 1e-4
    assert (net(frames.flip(0), z) - out).abs().max() > 1e-2


def test_starts_near_a_copy_of_the_last_frame() -> None:
    net = UNet(channels=6, frame=(32, 32), base=8, dim=16)
    frames, z = inputs(net, 8)
    miss = F.mse_loss(net(frames, z), frames[:, 3:])
    assert miss < 0.2 * frames[:, 3:].var()
    assert F.mse_loss(net(frames, z), frames[:, :3]) > 5 * miss
    assert UNet(channels=1, frame=(8, 8), base=4, dim=2)(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2)).shape == (
        1,
        3,
        8,
        8,
    )


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_maps_stay_channels_last_whatever_the_frames_are(half: bool) -> None:
    net = UNet(channels=6, frame=(32, 32), base=8, dim=16)
    frames, z = inputs(net)
    before = net(frames, z)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    strays: list[str] = []

    def look(name: str) -> None:
        def hook(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            strays.extend(name for x in (given[0], out) if not x.is_contiguous(memory_format=torch.channels_last))

        net.get_submodule(name).register_forward_hook(hook)

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            look(name)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        after = net(frames.contiguous(memory_format=torch.channels_last), z)
    assert not strays
    torch.testing.assert_close(after.float(), before, rtol=0.05 if half else 1e-4, atol=0.02 if half else 1e-5)


def test_learns_to_move_a_dot_as_the_latent_says() -> None:
    net = UNet(channels=3, frame=(8, 8), base=8, dim=2)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)

    def batch(count: int = 64) -> tuple[Tensor, Tensor, Tensor]:
        row, column = torch.randint(1, 7, (2, count))
        step = torch.randint(0, 2, (count,)) * 2 - 1
        pictures = torch.full((2, count, 3, 8, 8), -0.4)
        pictures[0, torch.arange(count), :, row, column] = 0.4
        pictures[1, torch.arange(count), :, row, column + step] = 0.4
        return pictures[0], F.one_hot((step + 1) // 2, 2).float(), pictures[1]

    for _ in range(200):
        before, z, after = batch()
        loss = F.mse_loss(net(before, z), after)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    before, z, after = batch()
    still = F.mse_loss(before, after)
    told, lied_to = F.mse_loss(net(before, z), after), F.mse_loss(net(before, z.flip(1)), after)
    assert told < 0.2 * still and lied_to > 4 * told


def test_wrong_sizes_are_refused() -> None:
    net = UNet(channels=6, frame=(16, 16), base=4, dim=5)
    with pytest.raises(ValueError, match=r"\(2, 6, 16, 8\)"):
        net(torch.zeros(2, 6, 16, 8), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(2, 5\)"):
        net(torch.zeros(2, 6, 16, 16), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="two pixels"):
        UNet(channels=3, frame=(1, 1), dim=4)


def test_saved_and_loaded_is_the_same(tmp_path: object) -> None:
    net = UNet(channels=6, frame=(16, 12), base=4, dim=5)
    frames, z = inputs(net)
    torch.testing.assert_close(UNet.load(net.save(str(tmp_path)))(frames, z), net(frames, z))
