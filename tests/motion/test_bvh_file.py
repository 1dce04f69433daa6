from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llamo_ros.core.errors import MotionFileError, ParameterError
from llamo_ros.motion.bvh_file import BvhFile, format_bvh, parse_bvh, read_bvh

ARM = """HIERARCHY
ROOT upper
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT lower
  {
    OFFSET 2 0 0
    CHANNELS 3 Yrotation Zrotation Xrotation
    End Site
    {
      OFFSET 1 0 0
    }
  }
}
MOTION
Frames: 2
Frame Time: .0083333
0 1 0 90 0 0 0 0 0
5 0 0 0 0 0 -90 0 0
"""
# Turns by 90 degrees in double precision.
EXACT = 1e-12


def without(text: str, old: str, new: str = "") -> str:
    assert old in text
    return text.replace(old, new)


def test_positions_and_rotations_follow_the_channels() -> None:
    positions, rotations = parse_bvh(ARM).forward_kinematics()
    np.testing.assert_allclose(positions[0], [[0, 1, 0], [0, 3, 0]], atol=EXACT)  # the arm turned up, about z
    np.testing.assert_allclose(positions[1], [[5, 0, 0], [7, 0, 0]], atol=EXACT)
    np.testing.assert_allclose(rotations[1, 1] @ [1, 0, 0], [0, 0, 1], atol=EXACT)  # -90 degrees about y: x to z


def test_rotation_channels_are_composed_in_file_order() -> None:
    text = without(ARM, "5 0 0 0 0 0 -90 0 0", "0 0 0 0 0 0 90 90 0")  # lower: Y first, then Z
    rotations = parse_bvh(text).forward_kinematics()[1]
    np.testing.assert_allclose(rotations[1, 1] @ [1, 0, 0], [0, 1, 0], atol=EXACT)  # R_y R_z x = R_y y = y


def test_position_channel_replaces_the_offset_of_its_axis_only() -> None:
    text = without(ARM, "CHANNELS 3 Yrotation Zrotation Xrotation", "CHANNELS 3 Yposition Zrotation Xrotation")
    positions = parse_bvh(without(text, "-90 0 0", "-3 0 0")).forward_kinematics()[0]
    np.testing.assert_allclose(positions[1, 1], [7, -3, 0], atol=EXACT)


def test_short_frame_time_is_the_whole_rate_it_means() -> None:
    assert parse_bvh(ARM).frame_rate == 120.0
    assert parse_bvh(without(ARM, ".0083333", "0.0333667")).frame_rate == pytest.approx(29.97, abs=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("  ", "\t"),
        lambda text: "\ufeff" + text,
        lambda text: text + "\n\n",
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("End Site", "End site").replace("Frames: ", "frames :\t"),
        lambda text: text.replace("{\n", " { \n\n"),
    ],
    ids=["crlf", "tabs", "byte order mark", "blank lines", "no last newline", "case", "blank lines inside"],
)
def test_spelling_of_other_tools_reads_the_same(change, tmp_path: Path) -> None:
    path = tmp_path / "arm.bvh"
    path.write_bytes(change(ARM).encode())
    actual, expected = read_bvh(path), parse_bvh(ARM)
    assert actual.names == expected.names and actual.channels == expected.channels
    np.testing.assert_array_equal(actual.values, expected.values)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (ARM, "  \n", "is empty"),
        (ARM[ARM.index("    End Site") :], "", "cut short"),
        (ARM[ARM.index("MOTION") :], "", "cut short"),
        ("5 0 0 0 0 0 -90 0 0\n", "", "2 frames are declared but the file ends after 1"),
        ("-90 0 0\n", "-90\n", "frame 1 has 7 values, expected 9"),
        ("-90 0 0\n", "-90 0 0\n" + "0 " * 9, "more frames than the 2 declared"),
        ("Frame Time: .0083333\n", "", "expected 'Frame Time:'"),
        (".0083333", "0", "outside"),
        (".0083333", "fast", "line 18: 'fast' is not a usable number"),
        ("Frames: 2", "Frames: 0", "at least 1"),
        ("Frames: 2", "Frames: 2.5", "'Frames: 2.5'"),
        ("Frames: 2", "Frames: 99999999999999999999", "is not a number of frames"),
        ("5 0 0 0", "5 nan 0 0", "line 20: 'nan' is not a usable number"),
        ("5 0 0 0", "5 0,5 0 0", "'0,5' is not a usable number"),
        ("5 0 0 0", "1e300 0 0 0", "usable number"),
        ("5 0 0 0", "5_0 0 0 0", "usable number"),
        ("OFFSET 2 0 0", "OFFSET 2 0 inf", "'inf' is not a usable number"),
        ("OFFSET 2 0 0", "OFFSET 2 0", "'CHANNELS' is not a usable number"),
        (
            "Yrotation Zrotation Xrotation\n    End",
            "Yrotation Wrotation Xrotation\n    End",
            "'Wrotation' is not a channel",
        ),
        ("CHANNELS 3", "CHANNELS 7", "from 0 to 6"),
        ("JOINT lower", "JOINT upper", "appears twice"),
        ("    OFFSET 2 0 0\n", "", "has no OFFSET"),
        ("HIERARCHY", "<html>", "expected 'HIERARCHY'"),
        ("MOTION", "ROOT second", "several skeletons"),
    ],
)
def test_damaged_file_is_refused_with_a_message_that_says_where(old: str, new: str, message: str) -> None:
    with pytest.raises(MotionFileError, match="(?s)" + message):
        parse_bvh(without(ARM, old, new))


def test_absurd_number_of_joints_is_refused() -> None:
    joints = "".join(f"JOINT j{i} {{ OFFSET 0 0 0 CHANNELS 0 End Site {{ OFFSET 0 0 0 }} }}\n" for i in range(1200))
    with pytest.raises(MotionFileError, match="more than 1000 joints"):
        parse_bvh(without(ARM, "  JOINT lower", joints + "JOINT lower"))


def test_deep_hierarchy_does_not_exhaust_the_stack() -> None:
    depth = 900
    opened = "".join(f"JOINT j{i} {{ OFFSET 0 0 0 CHANNELS 0\n" for i in range(depth))
    text = without(ARM, "  JOINT lower", opened + "JOINT lower")
    text = without(text, "}\nMOTION", "}\n" * depth + "}\nMOTION")
    assert len(parse_bvh(text).names) == depth + 2


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    with pytest.raises(MotionFileError, match="cannot be read: No such file"):
        read_bvh(tmp_path / "nothing.bvh")
    with pytest.raises(MotionFileError, match="cannot be read"):
        read_bvh(tmp_path)
    (tmp_path / "binary.bvh").write_bytes(ARM.encode() + b"\xff\xfe\x00")
    with pytest.raises(MotionFileError, match="not UTF-8 text"):
        read_bvh(tmp_path / "binary.bvh")


def test_any_cut_or_flipped_byte_gives_a_motion_file_error_or_a_sound_file(tmp_path: Path) -> None:
    """Only MotionFileError may come out. A cut inside the last number cannot be told from a shorter number."""
    generator = np.random.default_rng(0)
    content = ARM.encode()
    damaged = [content[:cut] for cut in range(len(content))]
    for _ in range(500):
        changed = bytearray(content)
        for place in generator.integers(0, len(changed), generator.integers(1, 4)):
            changed[place] = generator.integers(0, 256)
        if generator.random() < 0.5:
            del changed[generator.integers(0, len(changed)) : generator.integers(0, len(changed))]
        damaged.append(bytes(changed))
    path = tmp_path / "damaged.bvh"
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            bvh = read_bvh(path)
        except MotionFileError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert np.isfinite(bvh.forward_kinematics()[0]).all()
    assert refused > len(content)  # nearly every cut, and many flips


def test_every_cut_that_loses_more_than_the_last_number_is_refused() -> None:
    last_number = len(ARM.rstrip("\n")) - 1
    for cut in range(last_number):
        with pytest.raises(MotionFileError):
            parse_bvh(ARM[:cut])


def test_written_text_reads_back() -> None:
    bvh = parse_bvh(ARM)
    again = parse_bvh(format_bvh(bvh, {"lower": np.array([1.0, 0, 0])}))
    assert (again.names, again.parents, again.channels) == (bvh.names, bvh.parents, bvh.channels)
    np.testing.assert_array_equal(again.values, bvh.values)  # whole numbers: six decimals lose nothing
    assert again.frame_rate == bvh.frame_rate


def test_missing_end_site_is_refused() -> None:
    bvh: BvhFile = parse_bvh(ARM)
    with pytest.raises(ParameterError, match="'lower' has no children"):
        format_bvh(bvh, {})
