"""BVH as it stands in the file: joints, channels and numbers of any rig, in the file's own units and axes.

:mod:`llamo_ros.motion.bvh` turns this into a :class:`~llamo_ros.motion.clip.MotionClip` and back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import MotionFileError, ParameterError
from llamo_ros.motion.rotations import axis_angle_to_matrix

FloatArray = NDArray[np.floating]

MAXIMUM_BYTES = 2**30
MAXIMUM_JOINTS = 1000
MAXIMUM_VALUE = 1e7  # larger than any offset in millimetres or any sum of turns in degrees
FRAME_RATES = (1.0, 2000.0)

_CHANNELS = {f"{axis}{kind}".lower(): f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")}
# Frame times are written with few digits (".0083333"): a rate this close to a whole number is meant to be that number.
_WHOLE_RATE_TOLERANCE = 2e-4


@dataclass(frozen=True)
class BvhFile:
    """A rig and its motion, as written: lengths in the file's unit, angles in degrees, axes as the file has them.

    Attributes:
        names: Joint names, parents before children (J).
        parents: Index of each joint's parent, -1 for the root (J).
        offsets: Offset from the parent in the zero pose, shape (J, 3), [file unit].
        channels: For each joint its channels in file order, e.g. ``("Zrotation", "Xrotation", "Yrotation")`` (J).
        values: Channel values, shape (T, C), [file unit] and [deg].
        frame_rate: Frames per second, [Hz].
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: FloatArray
    channels: tuple[tuple[str, ...], ...]
    values: FloatArray
    frame_rate: float

    def __len__(self) -> int:
        return len(self.values)

    def forward_kinematics(self) -> tuple[FloatArray, FloatArray]:
        """World positions (T, J, 3), [file unit], and world rotations (T, J, 3, 3) of all joints.

        Rotation channels are composed in file order (``R = R_first R_second R_third``). A position channel replaces the
        offset's coordinate, as every common reader has it: files that give all joints six channels repeat the offset.
        """
        count = len(self)
        positions = np.empty((count, len(self.names), 3))
        rotations = np.empty((count, len(self.names), 3, 3))
        column = 0
        for joint, parent in enumerate(self.parents):
            offset = np.tile(self.offsets[joint], (count, 1))
            rotation = np.broadcast_to(np.eye(3), (count, 3, 3))
            for channel in self.channels[joint]:
                axis = "XYZ".index(channel[0])
                value = self.values[:, column]
                column += 1
                if channel.endswith("position"):
                    offset[:, axis] = value
                else:
                    rotation = rotation @ axis_angle_to_matrix(np.deg2rad(value)[:, None] * np.eye(3)[axis])
            if parent < 0:
                positions[:, joint], rotations[:, joint] = offset, rotation
            else:
                positions[:, joint] = positions[:, parent] + (rotations[:, parent] @ offset[..., None])[..., 0]
                rotations[:, joint] = rotations[:, parent] @ rotation
        return positions, rotations

    def zero_pose(self) -> FloatArray:
        """Joint positions with all rotations zero and the root's offset, shape (J, 3), [file unit]."""
        positions = self.offsets.copy()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                positions[joint] += positions[parent]
        return positions


def read_bvh(path: str | Path) -> BvhFile:
    """Read a BVH file of any rig.

    Raises:
        MotionFileError: the file is missing, larger than 1 GiB, not UTF-8 text, cut short or malformed; the message
            names the file, the line, and what was expected there.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAXIMUM_BYTES:
            raise MotionFileError(f"{path} has {size} bytes, expected at most {MAXIMUM_BYTES}. Split it into takes.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise MotionFileError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise MotionFileError(
            f"{path} is not UTF-8 text (byte {error.start}), so it is no BVH file or a damaged one. "
            "If only its joint names are in another encoding, save it again as UTF-8."
        ) from error
    return parse_bvh(text, str(path))


def parse_bvh(text: str, source: str = "BVH text") -> BvhFile:
    """Parse the text of a BVH file; ``source`` is the name that errors give it.

    Raises:
        MotionFileError: the text is cut short or malformed; the message names the line and what was expected there.
    """
    reader = _Reader(text.splitlines(), source)
    reader.expect("HIERARCHY", "a BVH file begins with it")
    joints = _parse_hierarchy(reader)
    reader.expect("MOTION", "one skeleton (ROOT), then the motion; a file with several skeletons must be split")
    count = reader.header("Frames", "the number of frames")
    if not re.fullmatch(r"\d{1,12}", count) or int(count) == 0:
        raise reader.error(f"'Frames: {count}' is not a number of frames (at least 1)")
    frame_time = reader.number(reader.header("Frame Time", "seconds per frame, e.g. 'Frame Time: 0.0333333'"))
    if not (1 / FRAME_RATES[1] <= frame_time <= 1 / FRAME_RATES[0]):
        raise reader.error(f"'Frame Time: {frame_time}' is outside 1/{FRAME_RATES[1]:.0f} to 1/{FRAME_RATES[0]:.0f} s")
    rate = 1.0 / frame_time
    whole = round(rate)
    channels = tuple(joint.channels for joint in joints)
    return BvhFile(
        tuple(joint.name for joint in joints),
        tuple(joint.parent for joint in joints),
        np.array([joint.offset for joint in joints], dtype=np.float64),
        channels,
        reader.frames(int(count), sum(map(len, channels))),
        float(whole) if abs(rate - whole) <= _WHOLE_RATE_TOLERANCE * whole else rate,
    )


def format_bvh(bvh: BvhFile, end_sites: dict[str, FloatArray]) -> str:
    """The text of a BVH file; ``end_sites`` gives the end offset (3,), [file unit], of each joint without children.

    A hierarchy is written limb by limb, so joints that stand in another order change places, with their values.

    Raises:
        ParameterError: a joint without children has no end site.
    """
    children: list[list[int]] = [[] for _ in bvh.names]
    for joint, parent in enumerate(bvh.parents):
        if parent >= 0:
            children[parent].append(joint)
    lines = ["HIERARCHY"]
    ends = np.cumsum([len(channels) for channels in bvh.channels])
    columns: list[int] = []

    def write(joint: int, depth: int) -> None:
        columns.extend(range(ends[joint] - len(bvh.channels[joint]), ends[joint]))
        indent = "\t" * depth
        lines.append(f"{indent}{'JOINT' if depth else 'ROOT'} {bvh.names[joint]}")
        lines.append(f"{indent}{{")
        lines.append(f"{indent}\tOFFSET {_numbers(bvh.offsets[joint])}")
        lines.append(f"{indent}\tCHANNELS {len(bvh.channels[joint])} {' '.join(bvh.channels[joint])}")
        for child in children[joint]:
            write(child, depth + 1)
        if not children[joint]:
            if bvh.names[joint] not in end_sites:
                raise ParameterError(f"joint '{bvh.names[joint]}' has no children and needs an end site.")
            lines.append(f"{indent}\tEnd Site")
            lines.append(f"{indent}\t{{")
            lines.append(f"{indent}\t\tOFFSET {_numbers(end_sites[bvh.names[joint]])}")
            lines.append(f"{indent}\t}}")
        lines.append(f"{indent}}}")

    write(0, 0)
    lines += ["MOTION", f"Frames: {len(bvh)}", f"Frame Time: {1.0 / bvh.frame_rate:.10f}"]
    lines += [_numbers(row) for row in bvh.values[:, columns]]
    return "\n".join(lines) + "\n"


def _numbers(values: FloatArray) -> str:
    return " ".join(f"{value:.6f}" for value in values)


@dataclass
class _Joint:
    name: str
    parent: int
    offset: list[float] | None = None
    channels: tuple[str, ...] | None = None


def _parse_hierarchy(reader: _Reader) -> list[_Joint]:
    reader.expect("ROOT", "the first joint")
    joints: list[_Joint] = []
    open_joints = [_begin_joint(reader, joints, -1)]
    while open_joints:
        index = open_joints[-1]
        joint = joints[index]
        word = reader.word(f"'JOINT', 'End Site' or '}}' for joint '{joint.name}'")
        keyword = word.upper()
        if keyword == "OFFSET":
            joint.offset = _parse_offset(reader)
        elif keyword == "CHANNELS":
            joint.channels = _parse_channels(reader)
        elif keyword == "JOINT":
            open_joints.append(_begin_joint(reader, joints, index))
        elif keyword == "END":
            reader.expect("Site", "'End Site' closes a chain of joints")
            reader.expect("{", "it opens the end site")
            reader.expect("OFFSET", "the end site's offset")
            _parse_offset(reader)
            reader.expect("}", "it closes the end site")
        elif word == "}":
            if joint.offset is None or joint.channels is None:
                raise reader.error(f"joint '{joint.name}' has no OFFSET or no CHANNELS; each joint needs both")
            open_joints.pop()
        else:
            raise reader.error(
                f"found '{word[:40]}', expected OFFSET, CHANNELS, JOINT, End Site or }} in joint '{joint.name}'"
            )
    return joints


def _begin_joint(reader: _Reader, joints: list[_Joint], parent: int) -> int:
    words = [reader.word("the name of a joint")]
    while (word := reader.word("'{' after the name of a joint")) != "{":
        words.append(word)
    name = " ".join(words)
    if any(name == joint.name for joint in joints):
        raise reader.error(f"joint '{name[:40]}' appears twice; joint names must differ. Rename one")
    if len(joints) >= MAXIMUM_JOINTS:
        raise reader.error(f"there are more than {MAXIMUM_JOINTS} joints; this is not the rig of a person")
    joints.append(_Joint(name, parent))
    return len(joints) - 1


def _parse_offset(reader: _Reader) -> list[float]:
    return [reader.number(reader.word("a coordinate of OFFSET")) for _ in range(3)]


def _parse_channels(reader: _Reader) -> tuple[str, ...]:
    count = reader.word("the number of channels")
    if not re.fullmatch("[0-6]", count):
        raise reader.error(f"'CHANNELS {count[:40]}' is not a number of channels from 0 to 6")
    found: list[str] = []
    for _ in range(int(count)):
        word = reader.word("a channel such as Xrotation")
        channel = _CHANNELS.get(word.lower())
        if channel is None or channel in found:
            raise reader.error(
                f"'{word[:40]}' is not a channel, or appears twice; expected {', '.join(_CHANNELS.values())}"
            )
        found.append(channel)
    return tuple(found)


class _Reader:
    """Words and lines of the file with their place, for messages."""

    def __init__(self, lines: list[str], source: str) -> None:
        self._lines = lines
        self._source = source
        self._next_line = 0
        self._words: list[str] = []
        if not any(line.strip() for line in lines):
            raise MotionFileError(f"{source} is empty, expected a BVH file. Export it again.")

    def error(self, problem: str) -> MotionFileError:
        return MotionFileError(f"{self._source}, line {max(self._next_line, 1)}: {problem}.")

    def word(self, wanted: str) -> str:
        while not self._words:
            if self._next_line >= len(self._lines):
                raise self.error(f"the file ends where {wanted} should be: it was cut short. Export or copy it again")
            self._words = self._lines[self._next_line].split()[::-1]
            self._next_line += 1
        return self._words.pop()

    def expect(self, keyword: str, why: str) -> None:
        word = self.word(f"'{keyword}'")
        if word.upper() != keyword.upper():
            raise self.error(f"found '{word[:40]}', expected '{keyword}' ({why})")

    def number(self, word: str) -> float:
        try:
            value = float(word) if "_" not in word else None
        except ValueError:
            value = None
        if value is None or not np.isfinite(value) or abs(value) > MAXIMUM_VALUE:
            raise self.error(f"'{word[:40]}' is not a usable number (finite, at most {MAXIMUM_VALUE:.0e})")
        return value

    def header(self, name: str, meaning: str) -> str:
        """The value of a line ``name: value``."""
        while self._next_line < len(self._lines) and not self._lines[self._next_line].strip():
            self._next_line += 1
        if self._words or self._next_line >= len(self._lines):
            raise self.error(f"'{name}:' ({meaning}) is missing: the file was cut short or is no BVH file")
        line = self._lines[self._next_line]
        self._next_line += 1
        match = re.fullmatch(rf"\s*{name}\s*:\s*(\S+)\s*", line, re.IGNORECASE)
        if match is None:
            raise self.error(f"found '{line.strip()[:40]}', expected '{name}:' and {meaning}")
        return match[1]

    def frames(self, declared: int, channel_count: int) -> FloatArray:
        """Channel values (declared, channel_count) of the rest of the file, one frame per line."""
        rows = []
        while self._next_line < len(self._lines):
            line = self._lines[self._next_line]
            self._next_line += 1
            words = line.split()
            if not words:
                continue
            if len(rows) == declared:
                raise self.error(f"there are more frames than the {declared} declared. Correct 'Frames:'")
            if len(words) != channel_count:
                raise self.error(
                    f"frame {len(rows)} has {len(words)} values, expected {channel_count} (all channels). "
                    "The file was cut short or damaged. Export or copy it again"
                )
            try:
                row = np.array(words, dtype=np.float64) if "_" not in line else None
            except ValueError:
                row = None
            if row is None or not (np.abs(row) <= MAXIMUM_VALUE).all():  # false for NaN too
                for word in words:
                    self.number(word)
                raise self.error(f"frame {len(rows)} has a value that is not a usable number")
            rows.append(row)
        if len(rows) < declared:
            raise self.error(
                f"{declared} frames are declared but the file ends after {len(rows)}: it was cut short. "
                "Export or copy it again, or correct 'Frames:' if the rest is not needed"
            )
        return np.array(rows)
