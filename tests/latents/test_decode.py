"""What a decoder makes of latents that are noisy, as found ones are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tacit.clip import Space
from tacit.data import toys
from tacit.envs.dots import Board
from tacit.latents import decode
from tacit.latents.decode import Decoder, Labels, Way
from tacit.recipes.tacit import tacit
from tacit.train import Plan


def noisy(count: int, *, seed: int) -> tuple[Labels, torch.Tensor]:
    """Actions around one of two wishes, and latents that tell each action but for noise as large as the actions."""
    random = torch.Generator().manual_seed(seed)
    which = torch.randint(2, (count,), generator=random)
    action = torch.tensor([[-0.3, 0.2], [0.3, -0.2]])[which] + 0.4 * torch.randn(count, 2, generator=random)
    latent = 2 * action + 0.8 * torch.randn(count, 2, generator=random)
    nothing = torch.zeros(count, 0)
    return Labels(latent, torch.zeros_like(latent), nothing, action, torch.arange(count)), which


def fitted(space: Space) -> tuple[Decoder, Labels, torch.Tensor]:
    labels, which = noisy(4000, seed=0)
    made = Decoder(space=space, latent=2, features=0).fit(labels, Way("linear", memory=False))
    return made, labels, which


def test_a_wish_is_answered_with_the_mean_action_and_regression_alone_answers_too_small() -> None:
    """A policy wishes for the mean latent of what was done: the action it gets must be the mean of what was done."""
    made, labels, which = fitted(Space("continuous", 2))
    means = torch.stack([labels.action[which == k].mean(0) for k in (0, 1)])
    wishes = torch.stack([labels.latent[which == k].mean(0) for k in (0, 1)])
    short = made(wishes, torch.zeros_like(wishes), torch.zeros(2, 0))
    apart = (short[1] - short[0]) / (means[1] - means[0])
    assert (apart < 0.7).all(), "regression takes off what the noise is of the whole, here about 0.4"
    whole = made.unshrunk(labels)(wishes, torch.zeros_like(wishes), torch.zeros(2, 0))
    torch.testing.assert_close(whole, means, atol=0.03, rtol=0)


def test_an_action_that_never_varied_is_left_as_it_was() -> None:
    made, labels, _ = fitted(Space("continuous", 2))
    labels.action[:, 1] = 0.5
    made.fit(labels, Way("linear", memory=False))
    said = made.unshrunk(labels)(labels.latent, labels.before, labels.seen)
    assert torch.isfinite(said).all() and said[:, 1].numpy() == pytest.approx(0.5, abs=1e-3)


def test_a_wish_is_answered_by_a_straight_map_even_where_a_vote_tells_single_latents_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Actions at their bounds: near the mean latent lie few labels, and a vote among those says next to nothing."""
    random = torch.Generator().manual_seed(0)
    which = torch.randint(2, (600,), generator=random)
    wanted = torch.tensor([[-0.6, 0.5], [0.6, -0.5]])[which] + 1.4 * torch.randn(600, 2, generator=random)
    action = wanted.clamp(-1, 1)
    latent = action.sign() * action.abs() ** 0.3 + 0.1 * torch.randn(600, 2, generator=random)
    labels = Labels(latent, torch.zeros_like(latent), torch.zeros(600, 0), action, torch.arange(600))
    monkeypatch.setattr(decode, "gather", lambda model, data: labels)
    monkeypatch.setattr(decode, "principal", lambda model, data: torch.eye(2))
    data: Any = SimpleNamespace(spec=SimpleNamespace(space=Space("continuous", 2)))
    single, errors = decode.decoder(None, data)  # type: ignore[arg-type]
    wished, _ = decode.decoder(None, data, wishes=True)  # type: ignore[arg-type]
    assert (single.kind, wished.kind) == ("vote", "linear"), errors

    def short_of(made: Decoder) -> float:
        wishes = torch.stack([latent[which == k].mean(0) for k in (0, 1)])
        means = torch.stack([action[which == k].mean(0) for k in (0, 1)])
        return float((made(wishes, torch.zeros_like(wishes), torch.zeros(2, 0)) - means).abs().max())

    assert short_of(wished) < 0.06 < short_of(single)


def test_latents_that_are_no_numbers_are_said_to_be_so() -> None:
    data = toys.dots(Board(size=16), episodes=4, length=6, seed=0).episodes
    model = tacit(data.unlabelled(), None, points=2, width=8, plan=Plan(steps=1, batch=4, device="cpu"))
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        decode.decoder(model, data.keep_labels(8))


ONE = {
    "sixteen alike": torch.full((16,), 2),
    "a single one": torch.tensor([3]),
    "numbers alike": torch.full((16, 2), 0.5),
}


@pytest.mark.parametrize("action", ONE.values(), ids=ONE)
def test_labels_that_all_say_the_same_are_believed(action: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen labels in a row are often one action: no ridge errs then, and none is infinitely better than another."""
    count, space = len(action), Space("continuous", 2) if action.ndim > 1 else Space("discrete", 5)
    latent = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(count, 0)
    labels = Labels(latent, latent.flip(0), nothing, action, torch.zeros(count, dtype=torch.long))
    monkeypatch.setattr(decode, "gather", lambda model, data: labels)
    monkeypatch.setattr(decode, "principal", lambda model, data: torch.eye(4))
    data: Any = SimpleNamespace(spec=SimpleNamespace(space=space))
    made, _ = decode.decoder(None, data, wishes=True)  # type: ignore[arg-type]
    said = made(torch.randn(3, 4), torch.zeros(3, 4), torch.zeros(3, 0))
    torch.testing.assert_close(said, action[:1].expand_as(said))


def test_ridges_of_every_firmness_at_once_are_those_that_normal_equations_give() -> None:
    labels, _ = noisy(60, seed=1)
    labels = Labels(labels.latent, labels.latent.flip(0), labels.latent[:, :1] ** 2, labels.action, labels.stretch)
    ways = [Way("linear", looks=True, kept=1, firmness=f) for f in (0.3, 30.0)]
    given = decode.beside(labels.latent, labels.before, seen=labels.seen, basis=torch.eye(2))
    for way in ways:
        made = Decoder(space=Space("continuous", 2), latent=2, features=1).fit(labels, way)
        x = (given - given.mean(0)) * made.unit
        assert made.unit[1] == made.unit[3] == 0, "of two directions one is kept"
        gram = x.T @ x + way.firmness * torch.eye(5)
        torch.testing.assert_close(made.weight, torch.linalg.solve(gram, x.T @ (labels.action - labels.action.mean(0))))
    errors = decode.held_out(labels, ways, space=Space("continuous", 2), basis=torch.eye(2))
    for way in ways:
        missed = []
        for out in (labels.stretch % decode.FOLDS == fold for fold in range(decode.FOLDS)):
            made = Decoder(space=Space("continuous", 2), latent=2, features=1).fit(labels.rows(~out), way)
            said = made.scores(labels.latent[out], labels.before[out], seen=labels.seen[out])
            missed.append((said - labels.action[out]).square())
        assert errors[way] == pytest.approx(float(torch.cat(missed).mean()), rel=1e-4)


def test_axes_are_found_where_single_precision_does_not_find_them(monkeypatch: pytest.MonkeyPatch) -> None:
    single = torch.linalg.eigh

    def failing(square: torch.Tensor) -> Any:
        if square.dtype == torch.float32:
            raise torch.linalg.LinAlgError("did not converge")
        return single(square)

    labels, _ = noisy(200, seed=0)
    way, told = Way("linear", memory=False), (labels.latent, labels.before, labels.seen)
    wanted = Decoder(space=Space("continuous", 2), latent=2, features=0).fit(labels, way)(*told)
    monkeypatch.setattr(torch.linalg, "eigh", failing)
    found = Decoder(space=Space("continuous", 2), latent=2, features=0).fit(labels, way)(*told)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
