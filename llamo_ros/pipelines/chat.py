"""Text in, text out: conversation with the language side of a model, exactly as its base would have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamo_ros.core.errors import CheckpointError, PromptError
from llamo_ros.model.checkpoint import checkpoint_folder, load_checkpoint
from llamo_ros.model.llama_base import require_transformers
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.seeded import seeded_generator
from llamo_ros.model.text_generation import TextMemory, TextOptions, generate_text
from llamo_ros.model.text_tokenizer import TextTokenizer, checked_prompt

MAX_CHARACTERS = 100_000


class Chat:
    """One conversation. Keys and values of what was said are kept, so a turn reads only what is new.

    With a chat template the text is laid out as the base was trained to converse; the oldest turns are forgotten when
    the conversation is too long. Without one the model goes on with the text so far, until it ends it by itself.
    """

    def __init__(
        self,
        model: Llamo,
        tokenizer: TextTokenizer,
        template: Any = None,
        options: TextOptions | None = None,
        seed: int = 0,
        context: int = 4096,
    ) -> None:
        """A conversation in which nothing was said.

        Args:
            model: The model, in evaluation mode.
            tokenizer: Its tokenizer.
            template: Tokenizer of transformers with a chat template, or None.
            options: How answers are written.
            seed: Of the draws when the temperature is above 0.
            context: Most tokens that the model looks back on, answer included.
        """
        self._tokenizer, self._template = tokenizer, template
        self._options = options or TextOptions()
        self._memory = TextMemory(model, context)
        self._generator = seeded_generator(seed)
        self._turns: list[dict[str, str]] = []  # with a template
        self._text = [tokenizer.bos]  # without a template

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, device: str = "cpu", options: TextOptions | None = None, seed: int = 0
    ) -> Chat:
        """A conversation with a shipped model by name, or a checkpoint folder.

        Raises:
            CheckpointError: the checkpoint is unknown, incomplete or damaged.
            ParameterError: it has a chat template and transformers, which reads those, is not installed.
        """
        folder = checkpoint_folder(checkpoint)
        tokenizer = TextTokenizer.load(folder / "tokenizer.json")
        template = chat_template(folder) if tokenizer.has_chat_template else None
        return cls(load_checkpoint(folder, device)[0], tokenizer, template, options, seed)

    @property
    def has_template(self) -> bool:
        """Whether turns are laid out by a chat template."""
        return self._template is not None

    def answer(self, text: str) -> Iterator[str]:
        """Pieces of the answer, as they are made. One that is left half-way is remembered as far as it was given.

        A text whose answer is never begun was never said.

        Raises:
            PromptError: the text is empty, not text, or too long for the context.
            CheckpointError: the chat template fails.
        """
        turns, ids = self._laid_out_turn(checked_prompt(text, MAX_CHARACTERS))
        return self._templated(turns, ids) if self.has_template else self._continued(ids)

    def _laid_out_turn(self, text: str) -> tuple[list[dict[str, str]], list[int]]:
        """The turns to look back on, this one the last, and the tokens to read."""
        room = self._memory.limit - self._options.max_tokens
        if self.has_template:
            turns = [*self._turns, {"role": "user", "content": text}]
            while len(ids := self._laid_out(turns)) > room and len(turns) > 1:
                turns = turns[2:]
            needed = len(ids)
        else:
            turns, new = self._turns, self._tokenizer.encode(text)
            ids = [self._tokenizer.bos, *[*self._text[1:], *new][1 - room :]]
            needed = 1 + len(new)
        if needed > room:
            raise PromptError(
                f"text has {needed} tokens and there is room for {max(room, 0)} besides an answer of up to "
                f"{self._options.max_tokens}. Shorten it, or allow a shorter answer with --max-tokens."
            )
        return turns, ids

    def _laid_out(self, turns: list[dict[str, str]]) -> list[int]:
        try:
            return self._template.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except Exception as error:  # a template is a program of its own
            raise CheckpointError(
                f"the chat template of the checkpoint cannot lay out the conversation ({error}); mend it in "
                "chat_template.jinja of its folder, or copy that of the base again."
            ) from error

    def _templated(self, turns: list[dict[str, str]], ids: list[int]) -> Iterator[str]:
        self._turns = turns
        pieces: list[str] = []
        try:
            for piece in self._tokenizer.pieces(self._tokens(ids)):
                pieces.append(piece)
                yield piece
        finally:
            self._turns.append({"role": "assistant", "content": "".join(pieces)})

    def _continued(self, ids: list[int]) -> Iterator[str]:
        self._text = ids

        def remembered() -> Iterator[int]:
            for token in self._tokens(list(ids)):
                self._text.append(token)
                yield token

        yield from self._tokenizer.pieces(remembered())
        if self._text[-1] in self._tokenizer.stop_ids:
            self._text = [self._tokenizer.bos]  # that text is over

    def _tokens(self, ids: list[int]) -> Iterator[int]:
        return generate_text(self._memory, ids, self._tokenizer.stop_ids, self._options, self._generator)


def chat_template(folder: Path) -> Any:
    """The tokenizer of transformers that lays out turns by the chat template of a checkpoint folder.

    Raises:
        CheckpointError: it cannot be read.
        ParameterError: transformers is not installed.
    """
    transformers = require_transformers()
    try:
        return transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"the chat template of {folder} cannot be read ({error}); copy it again.") from error
