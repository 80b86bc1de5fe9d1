"""Changes to a batch of frames that leave the action what it was: drawn per sample, made on the batch's device.

Draw once for the inverse model's frames and once for the forward model's: a latent that must serve under both cannot
describe where things were, only what changed. Bytes stay bytes, and the memory layout (channels last or not) is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shift(
    frames: Tensor, pad: int = 4, *, shared: bool = True, cyclic: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """Move each sample of ``frames`` (B, T, C, H, W) by up to ``pad`` pixels either way, so that place says nothing.

    One shift serves all T frames of a sample, or each frame gets its own (``shared=False``). What comes in over the
    edge repeats it, or is what left on the other side (``cyclic=True``, for worlds whose edges join).
    """
    _five(frames)
    if pad < 0:
        raise ValueError(f"shift's pad is {pad}; wanted a number of pixels, 0 or more.")
    count = (frames.shape[0], 1 if shared else frames.shape[1], 2)
    device = generator.device if generator is not None else frames.device
    offsets = torch.randint(-pad, pad + 1, count, generator=generator, device=device).to(frames.device)
    return moved(frames, offsets, reach=pad, cyclic=cyclic)


def moved(frames: Tensor, offsets: Tensor, *, reach: int | None = None, cyclic: bool = False) -> Tensor:
    """``frames`` (B, T, C, H, W) moved by ``offsets`` (B, T or 1, 2) pixels down and right: ``shift`` without chance.

    ``reach`` is the largest offset that may occur; giving it spares a GPU the wait of looking.
    """
    _five(frames)
    batch, time, channels, height, width = frames.shape
    if offsets.shape not in ((batch, 1, 2), (batch, time, 2)):
        raise ValueError(f"offsets have shape {tuple(offsets.shape)}; wanted {(batch, time, 2)} or {(batch, 1, 2)}.")
    reach = int(offsets.abs().max()) if reach is None else reach
    if cyclic and reach > width:
        offsets, reach = offsets.remainder(torch.tensor([height, width], device=offsets.device)), width
    last = _channels_last(frames)
    # Rows of pixels that lie whole in memory: (B, T, 1, H, W, C) with channels last, else (B, T, C, H, W, 1).
    rows = frames.permute(0, 1, 3, 4, 2)[:, :, None] if last else frames[..., None]
    groups, depth, wide = rows.shape[2], rows.shape[5], width + 2 * reach
    padded = rows.new_empty(*rows.shape[:4], wide, depth)
    padded[..., reach : reach + width, :] = rows
    if reach:
        padded[..., :reach, :] = rows[..., -reach:, :] if cyclic else rows[..., :1, :]
        padded[..., -reach:, :] = rows[..., :reach, :] if cyclic else rows[..., -1:, :]
    down, right = offsets[..., 0, None, None], offsets[..., 1, None, None]  # (B, T or 1, 1, 1)
    wanted = torch.arange(height, device=frames.device) - down
    wanted = wanted.remainder(height) if cyclic else wanted.clamp(0, height - 1)
    first = torch.arange(batch * time * groups, device=frames.device).view(batch, time, groups, 1) * height
    starts = (first + wanted) * wide + (reach - right)
    # Every stretch of `width` pixels as a row of one overlapping view: the crop is then a single gather of whole rows.
    windows = padded.view(-1).as_strided((padded.numel() // depth - width + 1, width * depth), (depth, 1))
    out = windows.index_select(0, starts.reshape(-1)).view(batch, time, groups, height, width, depth)
    return out[:, :, 0].permute(0, 1, 4, 2, 3) if last else out[..., 0]


def jitter(
    frames: Tensor,
    *,
    brightness: float = 0.1,
    contrast: float = 0.1,
    shared: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Change each sample's light by up to ``brightness`` of the range and its contrast by up to ``contrast``.

    Contrast is about mid-grey. All frames of a sample share the change unless ``shared=False``; frames are bytes, or
    floats in [0, 1].
    """
    _five(frames)
    count = (frames.shape[0], 1 if shared else frames.shape[1], 1, 1, 1)
    device = generator.device if generator is not None else frames.device
    light, gain = (2 * torch.rand(2, *count, generator=generator, device=device) - 1).to(frames.device)
    top = 255.0 if frames.dtype == torch.uint8 else 1.0
    gain = 1 + contrast * gain
    offset = top * (0.5 * (1 - gain) + brightness * light)
    if frames.dtype != torch.uint8:
        return (frames * gain + offset).clamp_(0, top)
    return torch.empty_like(frames).copy_(frames.float().mul_(gain).add_(offset + 0.5).clamp_(0, top))


def turn(frames: Tensor, *, shared: bool = True, generator: torch.Generator | None = None) -> Tensor:
    """Turn each sample of ``frames`` (B, T, C, H, H) by a random multiple of 90 degrees, the same for all its frames.

    For the forward model's eyes only where actions name directions: a turned picture means a turned action.
    """
    _five(frames)
    batch, time, _, height, width = frames.shape
    if height != width:
        raise ValueError(f"turn needs square frames; these are {height} by {width}. Crop or resize them first.")
    device = generator.device if generator is not None else frames.device
    quarters = torch.randint(4, (batch, 1 if shared else time), generator=generator, device=device).to(frames.device)
    return turned(frames, quarters)


def turned(frames: Tensor, quarters: Tensor) -> Tensor:
    """``frames`` (B, T, C, H, H) turned anticlockwise by ``quarters`` (B, T or 1) times 90 degrees."""
    each = frames if quarters.shape[1] == 1 else frames.flatten(0, 1)
    out = torch.empty_like(each)
    for k in range(4):
        picked = (quarters.flatten() == k).nonzero()[:, 0]
        out.index_copy_(0, picked, each.index_select(0, picked).rot90(k, (-2, -1)))
    return out if quarters.shape[1] == 1 else out.unflatten(0, frames.shape[:2])


def _channels_last(frames: Tensor) -> bool:
    return frames.stride(2) == 1 and frames.shape[2] > 1 and frames.stride(4) == frames.shape[2]


def _five(frames: Tensor) -> None:
    if frames.ndim != 5:
        raise ValueError(
            f"Frames have shape {tuple(frames.shape)}; wanted (B, T, C, H, W). Single pictures are frames[:, None]."
        )
