"""Byte-level BPE tokenizer of the text model, read from and trained into ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from llamo_ros.core.errors import CheckpointError, PromptError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
MAX_PROMPT_CHARACTERS = 1000


class TextTokenizer:
    """Text <-> token ids, with [BOS] and [EOS] by name."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        ids = [tokenizer.token_to_id(token) for token in (PAD, BOS, EOS)]
        if None in ids:
            raise CheckpointError(f"tokenizer.json lacks one of {PAD}, {BOS}, {EOS}; it belongs to another model.")
        self.pad, self.bos, self.eos = ids

    @classmethod
    def load(cls, path: Path) -> TextTokenizer:
        """Read ``tokenizer.json``.

        Raises:
            CheckpointError: the file is missing or not a tokenizer.
        """
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; the checkpoint folder is incomplete. Download or copy it again.")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except CheckpointError:
            raise
        except Exception as error:  # the tokenizers library raises bare Exception
            raise CheckpointError(f"{path} is not a readable tokenizer ({error}).") from error

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
        """Write ``tokenizer.json``."""
        self._tokenizer.save(str(path))

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, without [BOS] and [EOS]."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; special tokens are left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True).strip()


def checked_prompt(text: object) -> str:
    """The prompt as given, if it can be performed.

    Raises:
        PromptError: it is not text, is empty, is longer than 1000 characters, or holds undecodable bytes.
    """
    if not isinstance(text, str):
        raise PromptError(f"prompt is a {type(text).__name__}, expected text.")
    if not text.strip():
        raise PromptError("prompt is empty; say what to do, for example 'a person waves the right hand'.")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise PromptError(
            f"prompt has {len(text)} characters, at most {MAX_PROMPT_CHARACTERS} are allowed. "
            "Describe one short action, for example 'a person walks forward'."
        )
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise PromptError("prompt is not valid text (undecodable bytes); send it as UTF-8.")
    return text
