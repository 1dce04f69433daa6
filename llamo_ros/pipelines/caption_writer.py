"""CaptionWriter: the words for a motion that has been read, with their confidence. Shared by clips and streams."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llamo_ros.model.caption_generation import CaptionOptions, CaptionToken, MotionPrefix
from llamo_ros.model.caption_runtime import CaptionRuntime
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer, checked_prompt
from llamo_ros.pipelines.confidence import ConfidenceCalibration


@dataclass(frozen=True)
class Caption:
    """What is done in a motion.

    Attributes:
        text: One sentence.
        confidence: 0 to 1. Calibrated: the chance that the caption names the right action, as fitted on whole
            validation clips. Else the geometric mean probability of its tokens, which also falls where there are many
            ways to say the same.
        is_calibrated: Which of the two it is; sampled captions and checkpoints without calibration have the mean.
    """

    text: str
    confidence: float
    is_calibrated: bool = False


@dataclass(frozen=True)
class CaptionPiece:
    """A piece of a caption while it is written.

    Attributes:
        text: Text to put behind the pieces before; empty while a character is incomplete.
        probability: Of the token behind it, after those before.
    """

    text: str
    probability: float


class CaptionWriter:
    """Turns motion prefixes into words. Only reads the model: safe to share between threads."""

    def __init__(
        self, model: Llamo, tokenizer: TextTokenizer, calibration: ConfidenceCalibration | None = None
    ) -> None:
        self.model, self.calibration = model, calibration
        self.runtime = CaptionRuntime(model)
        self._tokenizer = tokenizer
        # A tokenizer without padding of its own pads with [EOS], which may be written.
        self._forbidden = {tokenizer.pad, tokenizer.bos} - {tokenizer.eos}

    def prefix(self, capacity: int) -> MotionPrefix:
        """An empty motion with room for ``capacity`` latents."""
        return MotionPrefix(self.runtime, self._tokenizer.bos, capacity)

    def tokens(self, prefix: MotionPrefix, options: CaptionOptions | None = None) -> Iterator[CaptionToken]:
        """Tokens of a caption, each as soon as it is made; the last one ends it unless it is cut."""
        return prefix.caption(self._tokenizer.stop_ids, self._forbidden, options)

    def pieces(self, prefix: MotionPrefix, options: CaptionOptions | None = None) -> Iterator[CaptionPiece]:
        """Pieces of a caption, each as soon as it is made; joined they are its text."""
        ids: list[int] = []
        written = ""
        for token in self.tokens(prefix, options):
            if token.id in self._tokenizer.stop_ids:
                return
            ids.append(token.id)
            text = self._tokenizer.decode(ids)
            # Bytes of an incomplete character decode to U+FFFD; they wait for the rest of it.
            new = text[len(written) :] if text.startswith(written) and not text.endswith("\ufffd") else ""
            written += new
            yield CaptionPiece(new, math.exp(token.log_probability))

    def caption(self, prefix: MotionPrefix, options: CaptionOptions | None = None) -> Caption:
        """The whole caption."""
        made = list(self.tokens(prefix, options))
        raw = math.exp(sum(token.log_probability for token in made) / len(made))
        text = self._tokenizer.decode(token.id for token in made if token.id not in self._tokenizer.stop_ids)
        if self.calibration is None or (options is not None and options.temperature > 0):
            return Caption(text, raw)
        return Caption(text, self.calibration(raw), is_calibrated=True)

    def log_likelihood(self, prefix: MotionPrefix, text: str) -> float:
        """Mean log-probability of the tokens of a text as the caption, its end included.

        Raises:
            PromptError: the text is empty, too long, or not text.
        """
        ids = self._tokenizer.encode(checked_prompt(text))
        return float(prefix.log_probabilities(ids, self._tokenizer.eos, self._forbidden - set(ids)).mean())
