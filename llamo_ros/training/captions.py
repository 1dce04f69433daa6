"""Caption work for training: mirrored wording and our own paraphrases of labelled takes."""

from __future__ import annotations

import re

import numpy as np
import yaml

from llamo_ros.core.resources import config_path

_MIRRORED = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
_SIDES = re.compile(r"\b(left|right|clockwise|counterclockwise)\b")


def mirrored_text(text: str) -> str:
    """Lower-cased caption of the mirrored motion: left and right, clockwise and counterclockwise swapped."""
    text = re.sub(r"\bcounter[ -]clockwise\b", "counterclockwise", text.lower())
    return _SIDES.sub(lambda match: _MIRRORED[match.group(0)], text)


class Paraphrases:
    """Our own wordings by content label, with the style added where there is one."""

    def __init__(self) -> None:
        data = yaml.safe_load(config_path("training", "paraphrases.yaml").read_text(encoding="utf-8"))
        self._content: dict[str, list[str]] = data["content"]
        self._style: dict[str, list[str]] = data["style"]

    def knows(self, content: str) -> bool:
        """Whether there are wordings for this label."""
        return content in self._content

    def draw(self, content: str, style: str, rng: np.random.Generator) -> str:
        """One wording of a take of this content and style."""
        text = str(rng.choice(self._content[content]))
        if style in self._style:
            text = f"{text} {rng.choice(self._style[style])}"
        return text

    def knows_how(self, style: str) -> bool:
        """Whether there are words for this style."""
        return style in self._style

    def how(self, style: str, rng: np.random.Generator) -> str | None:
        """Words for a style alone, such as "like an old person"; None if there are none, as for normal."""
        return str(rng.choice(self._style[style])) if self.knows_how(style) else None

    def groups(self) -> list[tuple[str, ...]]:
        """Wordings that say the same thing: of each content plain, and of each content in each style."""
        groups = []
        for texts in self._content.values():
            groups.append(tuple(texts))
            groups += [tuple(f"{text} {how}" for text in texts for how in hows) for hows in self._style.values()]
        return groups
