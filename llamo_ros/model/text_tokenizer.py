"""Tokenizer of the text model: a Llama base's own, or byte-level BPE trained here; both live in ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from llamo_ros.core.errors import CheckpointError, PromptError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
LLAMA3_PAD = "<|finetune_right_pad_id|>"  # what Llama 3 keeps for padding; its tokenizer_config.json does not say so
MAX_PROMPT_CHARACTERS = 1000

# What a Llama base has beside tokenizer.json: names of its special tokens, chat template, ids that end a text.
TOKENIZER_CONFIG, GENERATION_CONFIG, CHAT_TEMPLATE = (
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
)
COMPANIONS = (TOKENIZER_CONFIG, GENERATION_CONFIG, CHAT_TEMPLATE, "special_tokens_map.json")


class TextTokenizer:
    """Text <-> token ids, with the special tokens by name.

    Attributes:
        pad: Id of padding.
        bos: Id that begins a text.
        eos: Id that ends a text.
        stop_ids: All ids that end a text: ``eos``, and those that the base's generation_config.json names.
    """

    def __init__(self, tokenizer: Tokenizer, companions: dict[str, str] | None = None) -> None:
        """Find the special tokens.

        Args:
            tokenizer: The tokenizer.
            companions: Content of the files of ``COMPANIONS`` that there are, by name. Without tokenizer_config.json
                the special tokens have this package's own names.

        Raises:
            CheckpointError: a special token is not in the vocabulary, or a companion cannot be read.
        """
        self._tokenizer, self._companions = tokenizer, companions or {}
        tokenizer.encode_special_tokens = True  # "<eos>" typed by a user is text and ends nothing
        names = self._special_names()
        ids = {name: tokenizer.token_to_id(name) for name in names}
        if None in ids.values():
            missing = ", ".join(name for name, i in ids.items() if i is None)
            raise CheckpointError(f"tokenizer.json lacks {missing}; it belongs to another model.")
        self.pad, self.bos, self.eos = (ids[name] for name in names)
        self.stop_ids = frozenset({self.eos, *self._generation_stops()})

    @classmethod
    def load(cls, path: Path) -> TextTokenizer:
        """Read ``tokenizer.json`` and what stands beside it.

        Raises:
            CheckpointError: the file is missing or not a tokenizer.
        """
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; the checkpoint folder is incomplete. Download or copy it again.")
        beside = [path.parent / name for name in COMPANIONS]
        try:
            companions = {file.name: file.read_text(encoding="utf-8") for file in beside if file.is_file()}
            return cls(Tokenizer.from_file(str(path)), companions)
        except CheckpointError as error:
            raise CheckpointError(f"{path} cannot be used: {error}") from error
        except Exception as error:  # the tokenizers library raises bare Exception
            raise CheckpointError(f"{path} is not a readable tokenizer ({error}).") from error

    @property
    def has_chat_template(self) -> bool:
        """Whether the base brought a chat template."""
        return bool(self._companions.get(CHAT_TEMPLATE)) or bool(self._companion(TOKENIZER_CONFIG).get("chat_template"))

    def _special_names(self) -> tuple[str, str, str]:
        if TOKENIZER_CONFIG not in self._companions:
            return PAD, BOS, EOS
        config = self._companion(TOKENIZER_CONFIG)

        def named(key: str) -> str | None:
            value = config.get(key)  # older files hold a description of the token instead of its text
            return value.get("content") if isinstance(value, dict) else value

        bos, eos = named("bos_token"), named("eos_token")
        if not bos or not eos:
            raise CheckpointError(f"{TOKENIZER_CONFIG} names no bos_token or no eos_token; LLaMo needs both.")
        has_llama3_pad = self._tokenizer.token_to_id(LLAMA3_PAD) is not None
        return named("pad_token") or (LLAMA3_PAD if has_llama3_pad else eos), bos, eos

    def _generation_stops(self) -> list[int]:
        stops = self._companion(GENERATION_CONFIG).get("eos_token_id")
        stops = stops if isinstance(stops, list) else [stops]
        return [stop for stop in stops if isinstance(stop, int)]

    def _companion(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self._companions.get(name, "{}"))
        except ValueError as error:
            raise CheckpointError(f"{name} is not JSON ({error}).") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{name} is not a JSON object.")
        return content

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> TextTokenizer:
        """Byte-level BPE on ``texts``; case and a final full stop carry no meaning in captions and are dropped."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.NFKC(),
                normalizers.Lowercase(),
                normalizers.Replace(Regex(r"\s+"), " "),
                normalizers.Strip(),
                normalizers.Replace(Regex(r"[\s.!?]+$"), ""),
            ]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def save(self, path: Path) -> None:
        """Write ``tokenizer.json``, and beside it what the base brought along."""
        self._tokenizer.save(str(path))
        for name, content in self._companions.items():
            (path.parent / name).write_text(content, encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._tokenizer.get_vocab_size()

    @property
    def largest_id(self) -> int:
        """Largest token id; ``vocab_size`` - 1 unless ids are left out."""
        return max(self._tokenizer.get_vocab().values())

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without [BOS] and [EOS]; names of special tokens in it are plain text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; special tokens are left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """Text of token ids as they come; a character made of several tokens is held back until it is whole."""
        so_far: list[int] = []
        shown = ""
        for token in ids:
            so_far.append(token)
            text = self._tokenizer.decode(so_far, skip_special_tokens=True)
            if not text.endswith("\ufffd"):
                yield text[len(shown) :]
                shown = text
        if so_far and text != shown:
            yield text[len(shown) :]


def checked_prompt(text: object, most: int = MAX_PROMPT_CHARACTERS) -> str:
    """The prompt as given, if it can be performed.

    Raises:
        PromptError: it is not text, is empty, is longer than ``most`` characters, or holds undecodable bytes.
    """
    if not isinstance(text, str):
        raise PromptError(f"prompt is a {type(text).__name__}, expected text.")
    if not text.strip():
        raise PromptError("prompt is empty; say what to do, for example 'a person waves the right hand'.")
    if len(text) > most:
        raise PromptError(
            f"prompt has {len(text)} characters, at most {most} are allowed. "
            "Describe one short action, for example 'a person walks forward'."
        )
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise PromptError("prompt is not valid text (undecodable bytes); send it as UTF-8.")
    return text
