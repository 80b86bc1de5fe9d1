"""Prediction from noise: it is repeatable, hears the latent, sees the present where it should, and learns to paint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tacit.check import check_latents
from tacit.clip import Clip
from tacit.latents.denoise import CONTRAST, Denoised
from tacit.latents.inverse import Between, Difference
from tacit.latents.model import LatentActions
from tacit.parts.mlp import Flat
from tacit.parts.patches import PatchTransformer, Squeezed
from tacit.parts.quantize import Free

SIZE: dict[str, Any] = {"frame": (8, 8), "patch": 4, "width": 16, "layers": 1, "heads": 2}


def given() -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(3, 2, 3, 8, 8) - 0.5, torch.randn(3, 2, 6), torch.randn(3, 6)


def painter(**more: Any) -> Denoised:
    torch.manual_seed(0)
    return Denoised(dim=6, **{**SIZE, **more})


@pytest.mark.parametrize("code", [False, True])
def test_a_prediction_repeats_itself_and_each_hears_its_own_latent_and_no_other(code: bool) -> None:
    part, (seen, features, z) = painter(code=code), given()
    said = part(seen, features, z)
    assert said.shape == (3, 3, 8, 8) and torch.equal(part(seen, features, z), said)
    assert torch.allclose(part(seen[1:], features[1:], z[1:]), said[1:], atol=1e-5)
    for number in range(6):
        other = z.clone()
        other[1, number] += 1
        moved = (part(seen, features, other) - said).abs().flatten(1).amax(1)
        assert moved[1] > 1e-4 and moved[[0, 2]].max() < 1e-5
    blank, new = torch.zeros_like(seen), torch.randn_like(features)
    assert torch.allclose(part(blank, features, z), said) == code
    assert torch.allclose(part(seen, new, z), said) != code
    if code:  # where the latent leads is all that counts
        torch.testing.assert_close(part(seen, features + 1, z - 1), said, rtol=1e-4, atol=1e-4)


def test_who_knows_the_picture_is_brought_to_it_from_its_noise() -> None:
    clean, (seen, features, z) = torch.rand(3, 3, 8, 8) - 0.5, given()
    shown: list[float] = []

    class Knows(Denoised):
        def _clean(self, noisy: Tensor, level: Tensor, present: Tensor | None, heard: Tensor) -> Tensor:
            shown.append(float(level[0]))
            return CONTRAST * clean

    part = Knows(dim=6, steps=3, **SIZE)
    assert torch.allclose(part(seen, features, z), clean, atol=1e-6)
    assert shown == pytest.approx([1, 2 / 3, 1 / 3])
    torch.testing.assert_close(part(seen, features, z, goal=clean), clean)


def test_in_training_it_is_shown_the_goal_under_noise_of_every_strength() -> None:
    shown: list[tuple[Tensor, Tensor]] = []

    class Watched(Denoised):
        def _clean(self, noisy: Tensor, level: Tensor, present: Tensor | None, heard: Tensor) -> Tensor:
            shown.append((noisy, level))
            return super()._clean(noisy, level, present, heard)

    torch.manual_seed(0)
    goal, z = torch.rand(400, 3, 8, 8) - 0.5, torch.randn(400, 6)
    part = Watched(dim=6, code=True, **SIZE)
    part(goal[:, None], torch.zeros(400, 1, 6), z, goal=goal)
    noisy, level = shown[0]
    assert level.min() < 0.1 and level.max() > 0.98
    share = torch.sin((1 - level) * torch.pi / 2)[:, None, None, None]
    noise = noisy - share * CONTRAST * goal
    assert torch.allclose(noise.flatten(1).std(1), torch.sin(level * torch.pi / 2), atol=0.2)
    part(goal[:2, None], torch.zeros(2, 1, 6), z[:2])
    assert float(shown[1][1][0]) == 1 and torch.equal(shown[1][0][0], shown[1][0][1])  # and in use nothing of it


def test_it_comes_back_from_disk_with_its_noise(tmp_path: Path) -> None:
    part, whole = painter(code=True), given()
    assert torch.equal(Denoised.load(part.save(tmp_path))(*whole), part(*whole))


def test_it_learns_to_paint_what_the_latent_says() -> None:
    """Two pictures and a latent that says which: after a moment the right one, and the other for the other's latent."""
    torch.manual_seed(0)
    pictures, part = 0.4 * (torch.rand(2, 3, 8, 8) - 0.5).sign(), painter(code=True, steps=2)
    optimiser = torch.optim.Adam(part.parameters(), 1e-2)
    for _ in range(120):
        which = torch.randint(2, (32,))
        z = torch.nn.functional.one_hot(which, 6).float()
        said = part(pictures[which][:, None], torch.zeros(32, 1, 6), z, goal=pictures[which])
        optimiser.zero_grad()
        (said - pictures[which]).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        found = part(torch.zeros(2, 1, 3, 8, 8), torch.zeros(2, 1, 6), torch.eye(6)[:2])
    own, other = ((found - x).square().mean() for x in (pictures, pictures.flip(0)))
    assert float(own) < 0.2 * float(other)


@pytest.mark.parametrize("code", [False, True])
def test_a_model_that_denoises_keeps_its_promises(code: bool) -> None:
    torch.manual_seed(0)
    clip = Clip(frames=torch.rand(6, 3, 3, 8, 8))
    eyes = PatchTransformer(frame=(8, 8), patch=4, dim=8, layers=1, heads=2)
    made = (
        LatentActions(
            encoder=Squeezed(eyes, features=8, dim=4, heads=2), inverse=Difference(features=8), bottleneck=Free(8),
            forward=Denoised(dim=8, code=True, **SIZE),
        )
        if code
        else LatentActions(
            encoder=Flat(frame=(8, 8)), inverse=Between(features=64, dim=6, width=8), bottleneck=Free(6),
            forward=Denoised(dim=6, **SIZE),
        )
    )  # fmt: skip
    check_latents(made, clip)
