"""Reading robot profiles: typed entries of a YAML mapping, each error with the place of the entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from llamo_ros.core.errors import RobotError
from llamo_ros.motion.skeleton import JOINT_INDEX

FloatArray = NDArray[np.float64]

_BEYOND = 1e100  # no number of a profile is that large; its square is still finite


class ProfileReader:
    """A mapping from a profile that knows its place, so that each error can say where it is."""

    def __init__(self, content: Any, place: str) -> None:
        if not isinstance(content, dict):
            raise RobotError(f"{place} is {content!r}, expected a mapping.")
        self.content, self.place = content, place

    def take(self, key: str, kind: type) -> Any:
        """A required entry of a kind."""
        if key not in self.content:
            raise RobotError(f"{self.place} has no {key!r}. It has: {', '.join(map(str, self.content))}.")
        value = self.content[key]
        if not isinstance(value, kind):
            raise RobotError(f"{self.place}: {key!r} is {value!r}, expected {kind.__name__}.")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number that is not negative; required unless it has a default."""
        value = self.content.get(key, default)
        if not is_number(value) or value < 0:
            raise RobotError(
                f"{self.place}: {key!r} is {value!r}, expected a number that is not negative.{hint(value)}"
            )
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above 0; required unless it has a default."""
        value = self.number(key, default)
        if value == 0:
            raise RobotError(f"{self.place}: {key!r} is 0, it must be positive.")
        return value

    def array(self, key: str, shape: tuple[int | None, ...]) -> FloatArray:
        """A required read-only array; a size of None may be any."""
        entry = self.take(key, list)
        try:
            array = np.array(entry, dtype=np.float64)
            fits = array.ndim == len(shape) and all(
                want in (None, got) for want, got in zip(shape, array.shape, strict=True)
            )
        except (TypeError, ValueError, OverflowError):
            fits = False
        if not fits or not (np.abs(array) < _BEYOND).all():
            sizes = " x ".join("any" if size is None else str(size) for size in shape)
            raise RobotError(f"{self.place}: {key!r} is {entry!r}, expected {sizes} numbers.")
        array.setflags(write=False)
        return array

    def section(self, key: str) -> ProfileReader:
        """A mapping inside; empty where the profile has none."""
        content = self.content.get(key)
        return ProfileReader({} if content is None else content, f"{self.place}: {key}")

    def parts(self, key: str) -> list[tuple[str, ProfileReader]]:
        """Name and content of each mapping inside a section."""
        section = self.section(key)
        return [(name, ProfileReader(entry, f"{section.place}.{name}")) for name, entry in section.content.items()]

    def human_joint(self, name: Any) -> int:
        """Index of a joint of smpl22."""
        if not isinstance(name, str) or name not in JOINT_INDEX:
            raise RobotError(f"{self.place}: human joint {name!r} is not in smpl22. Known: {', '.join(JOINT_INDEX)}.")
        return JOINT_INDEX[name]

    def only(self, keys: Sequence[str]) -> None:
        """Refuse entries that mean nothing here: a misspelt one would be ignored without a word."""
        for key in self.content:
            if key not in keys:
                raise RobotError(f"{self.place} has an unknown entry {key!r}. Known: {', '.join(keys)}.")


def is_number(value: Any) -> bool:
    """Whether an entry is a finite number."""
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) < _BEYOND


def hint(value: Any) -> str:
    """What to do about text that was meant to be a number, with a space before it, or nothing."""
    try:
        float(value if isinstance(value, str) else "")
    except ValueError:
        return ""
    return " Without quotes, and with a point and a sign where it has an exponent: 7.5e+3."


class _Loader(yaml.SafeLoader):
    """Refuses an entry that is there twice: YAML would take the last one without a word, and lose the other."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"entry {key.value!r} in line {line} is there twice; keep one of the two")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_profile(path: Path) -> ProfileReader:
    """Read the YAML of a profile.

    Raises:
        RobotError: the file cannot be read or is no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RobotError(f"robot profile {str(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise RobotError(f"robot profile {str(path)!r} holds {type(content).__name__}, expected a mapping.")
    return ProfileReader(content, f"robot profile {path.name!r}")
