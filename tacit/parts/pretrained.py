"""Models that others trained: found in a folder, the cache or the hub, read as safetensors, and kept as they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from tacit.part import Part

FILES = ["*.json", "model*.safetensors", "tokenizer.model", "vocab.txt", "merges.txt"]  # what is ever fetched
CODE = ["**/*.py", "onnx/*", "openvino/*"]  # and what never is
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
PASSING = {"transformers_version", "_name_or_path", "torch_dtype", "dtype"}  # what a config says of who wrote it


class Borrowed(Part):
    """A part around a public model that never learns: it is saved as where that lies and a print of it, not in full.

    The model is held where torch does not look for weights, so that no optimiser, saved file, average or training mode
    ever meets it. It moves between devices with the part. Loading reads it again from its place, and refuses another.
    """

    held: tuple[nn.Module, ...] = ()

    def hold(self, model: nn.Module, *, folder: Path, files: tuple[str, ...] = (), about: str = "") -> None:
        """Take ``model`` in, with the print of its ``folder``, of ``files`` there and of how it is asked."""
        self.held = (model.requires_grad_(False).eval(),)
        mark = _print(folder, files, about=about)
        self.register_buffer("mark", torch.tensor(list(mark), dtype=torch.uint8))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for model in self.held:
            model._apply(lambda x: _flatly(fn, x))
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        saved, errors = state.get(f"{prefix}mark"), rest[-1]
        if saved is not None and not torch.equal(saved.cpu(), self.mark.cpu()):
            errors.append(
                f"{next(iter(self.arguments.values()))!r} holds {_hex(self.mark)}, and {_hex(saved)} when this was "
                "saved. Put back what was there: what has been learnt goes with those weights."
            )
        super()._load_from_state_dict(state, prefix, *rest)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


def needed(who: str) -> Any:
    """The package ``transformers``, or what installs it."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f'{who} takes the package transformers: pip install "tacit[features]".') from error
    return transformers


def located(source: str) -> Path:
    """The folder of a model: ``source`` itself, else what the cache holds by that name, else what the hub sends."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _sound(folder)
    if folder.is_file() or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        raise FileNotFoundError(
            f"{source!r} is no folder; give one with config.json and model.safetensors, or a name on the hub such as "
            "'facebook/dinov2-small'."
        )
    from huggingface_hub import snapshot_download

    told = ""
    for cached in (True, False):  # what is here is used without asking anybody
        try:
            found = snapshot_download(source, allow_patterns=FILES, ignore_patterns=CODE, local_files_only=cached)
            return _sound(Path(found))
        except (OSError, ValueError) as error:
            told = str(error).strip().partition("\n")[0]
    raise FileNotFoundError(
        f"{source!r} is neither a folder here, nor in the cache, nor to be had from the hub: {told} Fetch it where "
        f"there is a network (`hf download {source}`) and bring the folder."
    )


def loaded(cls: Any, folder: Path, **changes: Any) -> nn.Module:
    """The model in ``folder``, in full precision, with every weight that it wants; no code comes with it."""
    try:
        with _quiet():
            model, report = cls.from_pretrained(
                str(folder),
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **changes,
            )
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(f"{folder} cannot be read as a {cls.__name__}: {error}") from error
    lost = sorted(
        str(name) for name in report["missing_keys"] if "mask_token" not in str(name)
    )  # used in training only
    if lost:
        raise ValueError(
            f"{folder} lacks {len(lost)} weights of a {cls.__name__} ({', '.join(lost[:3])}), which would be random; "
            "give the folder of the whole model."
        )
    return model


def told(folder: Path, *names: str) -> dict[str, Any]:
    """What the first of these JSON files that is there says."""
    for name in names:
        if (folder / name).is_file():
            try:
                said = json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{folder / name} is not JSON: {error}") from error
            if isinstance(said, dict):
                return said
            raise ValueError(f"{folder / name} holds a {type(said).__name__}; wanted names and values.")
    raise FileNotFoundError(f"{folder} holds no {' or '.join(names)}; give the model's whole folder.")


def _sound(folder: Path) -> Path:
    """The folder, if what it holds can be read without running anything."""
    if not list(folder.glob("model*.safetensors")):
        pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickled:
            raise ValueError(
                f"{folder} holds its weights as {pickled[0]}, a pickle, which can run code; tacit reads safetensors "
                "alone. Open it once where you trust it, with transformers, and call save_pretrained."
            )
        raise FileNotFoundError(f"{folder} holds no model.safetensors; give a model's whole folder.")
    told(folder, "config.json")
    return folder


def _print(folder: Path, files: tuple[str, ...], *, about: str) -> bytes:
    """A hash of the weights, of how they are wired, and of these files: what decides what the model answers."""
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    wiring = {k: v for k, v in told(folder, "config.json").items() if k not in PASSING}
    digest.update(json.dumps(wiring, sort_keys=True).encode())
    for path in [*sorted(folder.glob("model*.safetensors")), *(folder / name for name in files)]:
        if path.is_file():
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return digest.digest()


def _hex(mark: Tensor) -> str:
    return bytes(mark.cpu().tolist()).hex()[:8]


def _flatly(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``fn`` of a tensor, by way of four dimensions if it has five: torch has a layout for pictures, none for clips."""
    return fn(x.flatten(0, 1)).unflatten(0, x.shape[:2]) if x.ndim == 5 else fn(x)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bar and the table that loading shows: what matters in them is an error here."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
