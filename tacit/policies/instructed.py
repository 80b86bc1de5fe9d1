"""Following instructions of any kind: a stretch of video or a sentence, both said in one latent."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from tacit.clip import Clip, Space, each, floats, pasts
from tacit.part import Part
from tacit.parts.attention import Queries
from tacit.parts.mlp import Layers
from tacit.parts.normal import drawn, nats, parted
from tacit.parts.outputs import Head
from tacit.policies.policy import Memory, Policy, recall

QUICK = 5.0  # what moves of features are multiplied by: they are small beside the features


class Instructed(Policy):
    """Acts on what it sees and on ``z``, which says what is wanted: read from a whole window of video, or from a text.

    All windows teach to act so that ``z``, read from the window itself, explains what was done (a bound on the
    likelihood, ``beta`` a nat from the unit Gaussian). Windows with a text teach what texts mean: what window and text
    say is to be the same (``aligned`` a nat between them). Without a ``language`` (a part from texts to
    vectors (N, told)) only video instructs. In acting, a text instructs where there is one; ``shown`` sets a video.
    """

    hindsight = True

    def __init__(
        self,
        *,
        encoder: Part,
        features: int,
        space: Space,
        window: int,
        language: Part | None = None,
        told: int = 0,
        dim: int = 16,
        past: int = 1,
        width: int = 256,
        beta: float = 1e-2,
        aligned: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder, self.language = copy.deepcopy(encoder).requires_grad_(), language
        self.window, self.dim, self.past, self.beta, self.aligned = window, dim, past, beta, aligned
        heads = next(h for h in (4, 2, 1) if width % h == 0)
        self.step = Layers(inputs=2 * features, dim=width, width=width, depth=1)
        self.gather = Queries(features=width, dim=width, queries=1, heads=heads, frames=window - 1)
        self.read = Layers(inputs=width, dim=2 * dim, width=width, depth=1)
        self.heard = Layers(inputs=told, dim=2 * dim, width=width, depth=1) if language is not None else None
        self.head = Head(features=features * (past + 1) + dim, space=space, width=width)
        self.register_buffer("video", torch.zeros(dim))  # what a video said that is to be followed

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.actions is not None and clip.mask is not None
        features = self._encoded(clip.frames)  # type: ignore[arg-type]
        said = self._watched(features)
        z = drawn(said) if self.training else parted(said)[0]
        index = pasts(clip.time - 1, self.past)
        seen = features[:, index].flatten(2)
        given = torch.cat([seen, z[:, None].expand(-1, clip.time - 1, -1)], 2).flatten(0, 1)
        miss = self.head.cost(given, clip.actions.flatten(0, 1), known=clip.mask.flatten())
        spent = nats(said).mean()
        cost, metrics = miss + self.beta * spent, {"miss": miss.detach(), "nats": spent.detach()}
        if self.heard is not None:
            taught = self._agreed(clip, said)
            cost, metrics["aligned"] = cost + self.aligned * taught, taught.detach()
        return cost, metrics

    def watched(self, clip: Clip) -> Tensor:
        """What a window of video (B, window frames) asks for: (B, dim)."""
        return parted(self._watched(self._encoded(clip.frames)))[0]  # type: ignore[arg-type]

    def asked(self, texts: tuple[str, ...]) -> Tensor:
        """What each text asks for: (B, dim)."""
        if self.heard is None or self.language is None:
            raise ValueError("This policy was built without a language; show it a video, or train it with one.")
        return parted(self.heard(self.language(texts).to(self.device)))[0]

    def shown(self, clip: Clip) -> Instructed:
        """The same policy, following from now on a window of video (1, window frames)."""
        with torch.no_grad():
            self.video.copy_(self.watched(clip).mean(0))
        return self

    def follow(self, window: Tensor, z: Tensor) -> Tensor:
        """What to do, for windows of bytes (B, past + 1, C, H, W), where this is wanted (B, dim)."""
        return self.head.decide(torch.cat([self._encoded(window).flatten(1), z], 1))

    def act(self, observation: Clip, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        window, _, memory = recall(observation, memory, past=self.past)
        z = self.video.expand(len(window), -1)
        if self.heard is not None and observation.text is not None:
            said = torch.tensor([bool(t) for t in observation.text], device=window.device)
            z = torch.where(said[:, None], self.asked(observation.text), z)
        return self.follow(window, z), memory

    def _agreed(self, clip: Clip, said: Tensor) -> Tensor:
        """How far what windows say (B, 2 dim) is from what their texts say: nats, over the windows that have one."""
        assert self.heard is not None and self.language is not None
        texts = clip.text or ("",) * len(clip)
        apart = nats(said, self.heard(self.language(texts).to(said.device)))
        spoken = torch.tensor([bool(text) for text in texts], device=said.device)
        return (apart * spoken).sum() / spoken.sum().clamp(min=1)

    def _watched(self, features: Tensor) -> Tensor:
        moved = (features[:, 1:] - features[:, :-1]) * QUICK
        steps = self.step(torch.cat([features[:, :-1], moved], 2))
        return self.read(self.gather(steps[:, :, None]))

    def _encoded(self, frames: Tensor) -> Tensor:
        return each(self.encoder, floats(frames))
