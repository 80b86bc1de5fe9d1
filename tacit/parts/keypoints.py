"""Where things are: pictures as a few places, and pictures repainted with the places moved."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.part import Part


class Keypoints(Part):
    """Pictures (N, 3, H, W) to places (N, 2 * points), x and y in [-1, 1]: a code in which motion is a difference.

    Each place is the mean of a sharpened map. Maps are standardised over the picture first, so that a detector fires
    on something from the first step; without it a map is flat, its mean is the middle, and nothing pulls it away.
    """

    def __init__(self, *, frame: tuple[int, int], points: int = 8, width: int = 32, sharpness: float = 0.0) -> None:
        super().__init__()
        if points < 1 or width < 1:
            raise ValueError(f"Keypoints was given {points=}, {width=}; it wants 1 or more of each.")
        (height, across), stride = frame, cell(frame)
        self.points, self.dim = points, 2 * points
        self.maps = nn.Sequential(
            nn.Conv2d(3, width, 2 * stride, stride, stride // 2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, points, 1),
        )
        self.sharpness = nn.Parameter(torch.tensor(sharpness))
        x, y = torch.meshgrid(places(across // stride), places(height // stride), indexing="xy")
        self.register_buffer("grid", torch.stack([x, y], -1).flatten(0, 1))

    def forward(self, frames: Tensor) -> Tensor:
        maps = self.maps(frames).flatten(2).contiguous().float()
        cells = maps.shape[-1]
        maps = F.layer_norm(maps, (cells,), weight=self.sharpness.exp().expand(cells), eps=1e-6)
        with torch.autocast(maps.device.type, enabled=False):  # half precision would round a place to a cell's eighth
            return (maps.softmax(-1) @ self.grid).flatten(1)


class Repaint(Part):
    """The next picture from this one, where its keypoints are, and how far they move: it erases here and paints there.

    The maps are drawn at the places, so the network need not know where in the picture it is; what it learns about a
    move holds everywhere. The output starts as the present picture.
    """

    sees = "frames"

    def __init__(self, *, frame: tuple[int, int], points: int, width: int = 32, spread: float = 0.12) -> None:
        super().__init__()
        stride, self.spread = cell(frame), spread
        self.look = nn.Conv2d(3, width, 2 * stride, stride, stride // 2)
        self.body = nn.Sequential(
            nn.Conv2d(width + 2 * points, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.paint = nn.ConvTranspose2d(width, 3, 2 * stride, stride, stride // 2)
        nn.init.zeros_(self.paint.weight)
        nn.init.zeros_(self.paint.bias)  # type: ignore[arg-type]
        self.register_buffer("down", places(frame[0] // stride))
        self.register_buffer("across", places(frame[1] // stride))

    def forward(self, frames: Tensor, features: Tensor, z: Tensor) -> Tensor:
        now, here = frames[:, -1], features[:, -1]
        there = here + z
        seen = torch.cat([F.relu(self.look(now)), self._spots(here), self._spots(there)], 1)
        return now + self.paint(self.body(seen))

    def _spots(self, points: Tensor) -> Tensor:
        x, y = points.float().view(len(points), -1, 2).unbind(-1)
        wide = torch.exp(-((self.across - x[..., None]) ** 2) / (2 * self.spread**2))
        tall = torch.exp(-((self.down - y[..., None]) ** 2) / (2 * self.spread**2))
        return tall[..., :, None] * wide[..., None, :]


def cell(frame: tuple[int, int]) -> int:
    """The side of a map's cell: about a sixteenth of the picture's, and even, for odd ones come out one short."""
    stride = max(2, frame[0] // 32 * 2)
    if frame[0] % stride or frame[1] % stride:
        raise ValueError(f"Keypoints wants frame sides that {stride} divides, not {frame}; 32, 48 and 64 will do.")
    return stride


def places(count: int) -> Tensor:
    """The middles of ``count`` equal cells of [-1, 1]."""
    return (torch.arange(count) + 0.5) / count * 2 - 1
