"""The text encoder of the Wan family: a prompt goes in, embeddings that a backbone hears come out.

Source: umT5, Chung et al. 2023 (arXiv:2304.09151), by transformers' UMT5EncoderModel.
"""

from __future__ import annotations

import html
import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worldsim.errors import ConfigError, MissingDependency, WeightsError, fetching, installing
from worldsim.files import check_finite
from worldsim.models.wan.files import ENDINGS, INDEX, shards
from worldsim.models.wan.keymap import renamed, text_name
from worldsim.models.wan.kinds import looks_like
from worldsim.models.wan.stored import CARD
from worldsim.models.wan.weights import Weights, open_tensors

LENGTH = 512
"""So many tokens of a prompt are heard, its end mark included."""
REMEMBERED = 32
"""So many prompts are remembered; the longest takes 4 MiB in bfloat16."""
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
REPOSITORY = "Wan-AI/Wan2.1-T2V-1.3B"
PUBLISHED = ("models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/tokenizer.json")
END = 1
"""The token behind every prompt."""
BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
QUERIES = "encoder.block.0.layer.0.SelfAttention.q.weight"
INNER = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
EMBEDDED = "shared.weight"
TIED = "encoder.embed_tokens.weight"


class Tokenizer(Protocol):
    """What a tokenizer of transformers can do that is needed here."""

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
        """A mapping with "input_ids"."""
        ...


class WanText:
    """Embeds prompts, and remembers those it was asked for last. Computes where the encoder lies.

    Args:
        encoder: transformers' UMT5EncoderModel.
        tokenizer: the encoder's.
        length: so many tokens of a prompt are heard.
        remembered: so many prompts are.

    Raises:
        ConfigError: one of these is below 1.
    """

    def __init__(
        self, encoder: nn.Module, tokenizer: Tokenizer, *, length: int = LENGTH, remembered: int = REMEMBERED
    ) -> None:
        if length < 1 or remembered < 1:
            raise ConfigError(f"at least one token is heard and one prompt remembered, got {length} and {remembered}")
        self.encoder = encoder.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._length = length
        self._most = remembered
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    @property
    def length(self) -> int:
        """So many tokens of a prompt are heard."""
        return self._length

    def encode(self, prompt: str) -> Tensor:
        """The embeddings of its tokens, [L, width] on the encoder's device, L at most `length`, without padding.

        They are shared by all who ask for this prompt: leave them as they are. Of a longer prompt the beginning is
        embedded, with the end mark; `left_out` tells how much was not. WeightsError if they are no numbers.

        A published pipeline pads to 512 tokens, which are masked, and sets what comes out for them to zero: for the
        real tokens that is the same up to rounding, and most prompts have fewer than a quarter as many.
        """
        text = cleaned(prompt)
        if text not in self._known:
            ids = self._tokenizer(text, truncation=True, max_length=self._length)["input_ids"]
            device = next(self.encoder.parameters()).device
            with torch.no_grad():
                embedded = self.encoder(torch.tensor([ids], device=device)).last_hidden_state[0]
            # Not its weights: they are mapped, and reading eleven gigabytes would take longer than all else.
            self._known[text] = check_finite(embedded, "what it makes of a prompt", "the text encoder")
        self._known.move_to_end(text)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return self._known[text]

    def left_out(self, prompt: str) -> int:
        """How many tokens at the end of a prompt are not heard, because it is too long; 0 for most."""
        ids = self._tokenizer(cleaned(prompt), verbose=False)["input_ids"]
        return max(0, len(ids) - self._length)


def cleaned(prompt: str) -> str:
    """The prompt as the published pipelines clean it: garbled letters mended, HTML read, runs of white space one space.

    Raises:
        MissingDependency: ftfy is not installed. Without it some prompts would be heard otherwise than published.
    """
    try:
        import ftfy
    except ImportError as error:
        raise MissingDependency(f"prompts are cleaned by ftfy: {installing('wan')}") from error
    # Twice, as published: text from the web is often escaped twice.
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


def load_text(
    path: Path, *, dtype: torch.dtype, device: torch.device, tokenizer: Path | None = None, length: int = LENGTH
) -> WanText:
    """The text encoder that a file or a folder holds, with its tokenizer.

    Weights that are stored in that dtype stay mapped from their file where the device is the CPU.

    Args:
        path: the original models_t5_umt5-xxl-enc-bf16.pth or the folder that it lies in; a folder of transformers; or a
            pipeline of diffusers, with text_encoder/ and tokenizer/.
        dtype: to compute in; bfloat16 as published.
        device: the CPU will do beside a backbone elsewhere: a prompt is embedded once.
        tokenizer: the folder that it is in; None looks beside the weights, in google/umt5-xxl, umt5-xxl and tokenizer.
        length: so many tokens of a prompt are heard.

    Raises:
        WeightsError: there is no encoder or no tokenizer, or the weights are not those of one.
        MissingDependency: transformers is not installed.
    """
    try:
        from transformers import UMT5Config, UMT5EncoderModel
    except ImportError as error:
        raise MissingDependency(f"prompts need transformers: {installing('wan')}") from error
    files, places = _find(path)
    where = _tokenizer_folder(places if tokenizer is None else (tokenizer,), files[0].parent)
    weights = _encoder_weights(open_tensors(files), path)
    with torch.device("meta"):
        encoder = UMT5EncoderModel(UMT5Config(**_sizes(weights.shapes, path)))
    wanted = {name: list(tensor.shape) for name, tensor in encoder.state_dict().items() if name != TIED}
    weights.check(wanted, path)
    state = {name: weights[name].to(device, dtype) for name in wanted}
    encoder.load_state_dict({**state, TIED: state[EMBEDDED]}, assign=True)
    return WanText(encoder, _tokenizer(where, state[EMBEDDED].shape[0]), length=length)


def lacking_text(folder: Path) -> list[str]:
    """Those of the files in PUBLISHED without which load_text finds no encoder, or no tokenizer, in a folder."""
    file = next(_candidates(folder), None)
    places = _places(file or folder / PUBLISHED[0], in_folder=True)
    there = (file is not None, any(map(_holds_tokenizer, places)))
    return [name for name, is_there in zip(PUBLISHED, there, strict=True) if not is_there]


def _tokenizer(folder: Path, known: int) -> Tokenizer:
    """The tokenizer in a folder, of an encoder of so many tokens; WeightsError if it is damaged, or of another one."""
    found = _read_tokenizer(folder)
    if len(found) > known or found("")["input_ids"][-1:] != [END]:
        raise WeightsError(
            f"{folder} holds a tokenizer of another text encoder, or a damaged one: it has {len(found)} tokens, of "
            f"which the encoder knows {known}, and puts {found('')['input_ids']} behind a prompt, which ends with "
            f"[{END}]; put {PUBLISHED[1]} of {REPOSITORY} there"
        )
    tokenizer: Tokenizer = found
    return tokenizer


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = folder / TOKENIZER_FILES[0]
    try:
        if not file.is_file():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if not {"model", "version"} <= {*json.loads(file.read_text(encoding="utf-8"))}:
            raise ValueError(f"{file.name} describes none")
        # As it is: what transformers 5 makes of the class that the folder names may split text in another way.
        read: Any = PreTrainedTokenizerFast
        return read(tokenizer_file=str(file))
    except Exception as error:
        # The library has no error of its own: what it cannot read is an Exception and nothing more.
        if (
            not isinstance(error, OSError | ValueError | LookupError | TypeError | AttributeError)
            and type(error) is not Exception
        ):
            raise
        raise WeightsError(
            f"{folder} holds no tokenizer that can be read ({error}); put {PUBLISHED[1]} of {REPOSITORY} there"
        ) from error


def _find(path: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files of the encoder, and where its tokenizer may be."""
    file = next(_candidates(path), None) if path.is_dir() else path
    if file is None:
        raise _lacking(path, "looked for models_t5*.pth, text_encoder/ and model.safetensors there")
    return shards(file), _places(file, in_folder=path.is_dir())


def _places(file: Path, *, in_folder: bool) -> tuple[Path, ...]:
    """Where the tokenizer of an encoder may be."""
    beside, above = file.parent, file.parent.parent
    named = ("google/umt5-xxl", "umt5-xxl", "tokenizer")
    return (*(beside / name for name in named), beside, *((above / "tokenizer",) if in_folder else ()))


def _candidates(folder: Path) -> Iterator[Path]:
    for place in (folder / "text_encoder", folder):
        yield from sorted(each for each in place.glob("models_t5*") if each.name.endswith(ENDINGS))
        if (place / CARD).exists():
            continue  # what was converted to be there is a transformer, by the names below
        for name in ("model.safetensors", "pytorch_model.bin"):
            yield from (each for each in (place / (name + INDEX), place / name) if each.is_file())


def _tokenizer_folder(places: Sequence[Path], home: Path) -> Path:
    for place in places:
        if _holds_tokenizer(place):
            return place
    raise WeightsError(
        f"there is no tokenizer; looked for {' or '.join(TOKENIZER_FILES)} in {', '.join(map(str, places))}; get it by "
        f"{fetching(REPOSITORY, PUBLISHED[1], into=home)}"
    )


def _holds_tokenizer(place: Path) -> bool:
    return any((place / name).is_file() for name in TOKENIZER_FILES)


def _lacking(path: Path, why: str) -> WeightsError:
    into = path if path.is_dir() else path.parent
    return WeightsError(
        f"{path} holds no umT5 text encoder: {why}; get it by {fetching(REPOSITORY, *PUBLISHED, into=into)}"
    )


def _encoder_weights(raw: Weights, source: Path) -> Weights:
    """Those of the encoder by the names of transformers; the decoder of a whole model is left."""
    pairs = [(text_name(name), name) for name in raw] if "token_embedding.weight" in raw else [(n, n) for n in raw]
    kept = renamed(((n, old) for n, old in pairs if not n.startswith(("decoder.", "lm_head."))), source)
    tied = kept.pop(TIED, None)
    if tied is not None:
        kept.setdefault(EMBEDDED, tied)
    return raw.under(kept)


def _sizes(shapes: Mapping[str, Sequence[int]], source: Path) -> dict[str, Any]:
    """The arguments of UMT5Config that make an encoder of these shapes."""
    if any(len(shapes.get(name, ())) != 2 or 0 in shapes[name] for name in (EMBEDDED, BIAS, QUERIES, INNER)):
        raise _lacking(source, f"what is there looks like {looks_like(shapes)}")
    buckets, heads = shapes[BIAS]
    return {
        "vocab_size": shapes[EMBEDDED][0],
        "d_model": shapes[EMBEDDED][1],
        "d_kv": shapes[QUERIES][0] // heads,
        "d_ff": shapes[INNER][0],
        "num_layers": len({name.split(".")[2] for name in shapes if name.startswith("encoder.block.")}),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu",
        "use_cache": False,
    }
