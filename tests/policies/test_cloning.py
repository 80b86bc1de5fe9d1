"""What cloning latents learns to wish for."""

from __future__ import annotations

import torch

from tacit.clip import Clip
from tacit.parts.keypoints import Keypoints
from tacit.policies.cloning import Cloning


def test_who_wishes_ahead_wishes_for_the_latents_in_their_order() -> None:
    """A latent that counts the transitions of its clip: the wish for the next comes first, that after it second."""
    torch.manual_seed(0)
    eyes = Keypoints(frame=(16, 16), points=4)
    pilot = Cloning(encoder=eyes, features=eyes.dim, latent=1, past=1, ahead=1)
    frames = torch.zeros(1, 6, 3, 16, 16, dtype=torch.uint8)
    for t in range(6):
        frames[0, t, :, 6:9, 2 * t : 2 * t + 3] = 255  # a square that moves on
    clip = Clip(frames=frames, latents=torch.arange(5.0)[None, :, None])
    optimiser = torch.optim.Adam(pilot.parameters(), lr=3e-3)
    for _ in range(300):
        loss, _ = pilot.loss(clip)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    said = pilot.eval().said(frames[:1, 1:3])  # sees frames 1 and 2: what follows are transitions 2 and 3
    torch.testing.assert_close(said, torch.tensor([[2.0, 3.0]]), atol=0.25, rtol=0)
