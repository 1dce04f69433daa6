"""The frame decoder: every backend against the reference and the motion room, chunks, and what it refuses."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import llamo_ros
from llamo_ros.core.errors import BackendError, MotionDataError, ParameterError, ShapeError
from llamo_ros.kernels.backends import compiled_kernels
from llamo_ros.kernels.frame_decoder import FrameDecoder
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import StreamingDecoder, encode_clip, heading_change, local_rotations
from llamo_ros.motion.rotations import rotation_about_y, rows6d_to_matrix
from llamo_ros.motion.skeleton import OFFSETS, PARENTS, forward_kinematics

# Float64 rounds at 1e-16, sines of different libraries differ by as much; errors add up over the frames and joints.
TOLERANCE = 1e-12
CHAIN = (-1, 0, 1), [[9.0, 9.0, 9.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.2]]  # the root's offset has no effect
SKELETONS = {"smpl22": (PARENTS, OFFSETS), "chain": CHAIN, "root": ((-1,), [[0.0, 0.0, 0.0]])}
BACKENDS = ("cpu", "reference")


def random_features(frames: int, joints: int, seed: int = 0) -> np.ndarray:
    """Random numbers: rotations and turns of any size."""
    return np.random.default_rng(seed).normal(size=(frames, 8 + 12 * joints))


def assert_equal(actual: tuple, expected: tuple, tolerance: float = 0.0) -> None:
    """All arrays and numbers of two results."""
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, strict=isinstance(ours, np.ndarray))


# --------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("with_joints", [False, True], ids=["rotations", "joints"])
@pytest.mark.parametrize("skeleton", SKELETONS)
@pytest.mark.parametrize("frames", [0, 1, 4, 33])
def test_compiled_kernel_matches_the_reference(frames: int, skeleton: str, with_joints: bool) -> None:
    parents, offsets = SKELETONS[skeleton]
    features = random_features(frames, len(parents))
    before = features.copy()
    fast, plain = (FrameDecoder(parents, offsets, backend=backend) for backend in BACKENDS)
    actual = fast.decode(features, 2.0, (3.0, -4.0), with_joints=with_joints)
    expected = plain.decode(features, 2.0, (3.0, -4.0), with_joints=with_joints)
    assert (actual.joint_positions is not None) == with_joints
    assert_equal(actual, expected, TOLERANCE)
    joints = [decoder.forward_kinematics(expected.rotations, expected.root_positions) for decoder in (fast, plain)]
    assert_equal(*joints, TOLERANCE)
    np.testing.assert_array_equal(features, before)  # features are never written


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_frames_are_those_that_the_motion_room_computes(backend: str, seed: int) -> None:
    features = random_features(33, 22, seed)
    heading, xz = 2.0, np.array([3.0, -4.0])
    frames = FrameDecoder(PARENTS, OFFSETS, backend=backend).decode(features, heading, tuple(xz), with_joints=True)

    headings = heading + np.cumsum(heading_change(features))
    steps = np.insert(features[:, :2], 1, 0.0, axis=1)[..., None]  # (x, 0, z)
    path = np.cumsum(rotation_about_y(np.concatenate([[heading], headings[:-1]])) @ steps, axis=0)[..., 0]
    path[:, [0, 2]] += xz
    path[:, 1] = features[:, 9]
    rotations = local_rotations(features)
    rotations[:, 0] = rotation_about_y(headings) @ rotations[:, 0]
    expected = (rotations, path, headings[-1], path[-1, [0, 2]], *forward_kinematics(rotations, path))
    assert_equal(frames, expected, TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_decode_to_the_joints_of_the_motion_they_encode(backend: str, random_clip: Callable) -> None:
    clip = random_clip(1, frames=20)
    start = FrameDecoder(PARENTS, OFFSETS).decode(encode_clip(clip)[:1]).rotations[0, 0] @ clip.rotations[0, 0].T
    frames = FrameDecoder(PARENTS, OFFSETS, backend=backend).decode(encode_clip(clip), with_joints=True)
    from_first = (clip.joint_positions() - clip.root_positions[0] * [1.0, 0.0, 1.0]) @ start.T
    np.testing.assert_allclose(frames.joint_positions, from_first, atol=1e-10)  # and encoded in between


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_chunks_decode_exactly_like_the_whole(backend: str, chunk: int) -> None:
    decoder = FrameDecoder(PARENTS, OFFSETS, backend=backend)
    features = random_features(22, 22)
    whole = decoder.decode(features, 1.0, (0.5, 0.25), with_joints=True)
    parts, heading, xz = [], 1.0, (0.5, 0.25)
    for start in range(0, 22, chunk):
        parts.append(decoder.decode(features[start : start + chunk], heading, xz, with_joints=True))
        heading, xz = parts[-1].heading, parts[-1].xz
    assert (heading, xz) == (whole.heading, whole.xz)
    for field in ("rotations", "root_positions", "joint_positions", "joint_rotations"):
        together = np.concatenate([getattr(part, field) for part in parts])
        # NumPy multiplies stacks of matrices of different lengths differently
        np.testing.assert_allclose(
            together, getattr(whole, field), rtol=0, atol=0 if backend == "cpu" else TOLERANCE, err_msg=field
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_frame_changes_nothing(backend: str) -> None:
    frames = FrameDecoder(*CHAIN, backend=backend).decode(np.empty((0, 44)), 2.0, (3.0, -4.0), with_joints=True)
    assert (frames.heading, frames.xz) == (2.0, (3.0, -4.0))
    assert frames.rotations.shape == frames.joint_rotations.shape == (0, 3, 3, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_chain_is_placed_as_by_hand(backend: str) -> None:
    features = np.zeros((2, 44))
    features[:, [2, 6]] = features[:, 8 + 18 :: 6] = features[:, 8 + 18 + 4 :: 6] = 1.0  # no turn, identities
    features[1, [2, 4]] = [0.0, -1.0]  # a quarter turn to the left
    features[:, 1], features[:, 9] = 2.0, 1.0  # ahead, and the height
    frames = FrameDecoder(*CHAIN, backend=backend).decode(features, with_joints=True)
    np.testing.assert_allclose(frames.root_positions, [[0, 1, 2], [0, 1, 4]], atol=TOLERANCE)
    np.testing.assert_allclose(frames.joint_positions[:, 1], [[0, 2, 2], [0, 2, 4]], atol=TOLERANCE)
    np.testing.assert_allclose(frames.joint_positions[:, 2], [[0.5, 2, 2.2], [0.2, 2, 3.5]], atol=TOLERANCE)


# ---------------------------------------------------------------------------------- rows that do not make a rotation

DEGENERATE = {
    "zeros": [0, 0, 0, 0, 0, 0],
    "no first": [0, 0, 0, 0, 1, 0],
    "no second": [2, 0, 0, 0, 0, 0],
    "parallel": [1, 2, 3, 1, 2, 3],
    "opposite": [1, -2, 3, -2, 4, -6],
    "tiny": [1e-13, 0, 0, 0, 1e-13, 0],
}
USABLE = {
    "small": [1e-9, 0, 0, 1e-9, 1e-9, 0],
    "nearly parallel": [1, 0, 0, 1, 1e-6, 0],
    "large": [1e100, 0, 0, 1, 1e100, 0],
    "skew": [3, 4, 0, 1, 0, 5],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [*DEGENERATE.values(), *USABLE.values()], ids=[*DEGENERATE, *USABLE])
def test_degenerate_rows_give_what_rows6d_to_matrix_gives(backend: str, rows: list[float]) -> None:
    features = random_features(2, 3)
    features[:, 8 + 18 + 6 : 8 + 18 + 12] = rows
    rotations = FrameDecoder(*CHAIN, backend=backend).decode(features).rotations
    # What is left of a parallel row is a rounding error of 1e-16, divided by 1e-12.
    np.testing.assert_allclose(rotations[:, 1], [rows6d_to_matrix(np.array(rows, dtype=float))] * 2, rtol=0, atol=1e-3)
    length = np.linalg.norm(rotations[:, 1], axis=-1).min()
    assert length < 0.5 if rows in DEGENERATE.values() else length > 1 - TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("joint", [0, 7])
@pytest.mark.parametrize("rows", DEGENERATE.values(), ids=DEGENERATE)
def test_a_stream_refuses_degenerate_rows_and_goes_on_behind_them(backend: str, joint: int, rows: list[float]) -> None:
    features = random_features(12, 22)
    spoilt = features[4:8].copy()
    spoilt[1, 140 + 6 * joint : 146 + 6 * joint] = rows
    decoder, expected = StreamingDecoder(1.0, (2.0, 3.0), backend=backend), StreamingDecoder(1.0, (2.0, 3.0))
    for chunk in (features[:4], features[8:]):
        clips = decoder.decode(chunk), expected.decode(chunk)
        np.testing.assert_allclose(clips[0].rotations, clips[1].rotations, atol=TOLERANCE)
        np.testing.assert_allclose(clips[0].root_positions, clips[1].root_positions, atol=TOLERANCE)
        with pytest.raises(MotionDataError, match="not rotation matrices"):
            decoder.decode(spoilt)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 4, 9, 20, 43])
def test_values_that_are_not_finite_are_refused(backend: str, value: float, column: int) -> None:
    features = random_features(4, 3)
    features[2, column] = value
    decoder = FrameDecoder(*CHAIN, backend=backend)
    with pytest.raises(MotionDataError, match="NaN or infinite"):
        decoder.decode(features)
    for state in ((value, (0.0, 0.0)), (0.0, (value, 0.0)), (0.0, (0.0, value))):
        with pytest.raises(MotionDataError, match="NaN or infinite"):
            decoder.decode(random_features(4, 3), *state)


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_kinematics_passes_nan_on_to_the_children_only(backend: str) -> None:
    rotations, roots = np.tile(np.eye(3), (2, 3, 1, 1)), np.zeros((2, 3))
    rotations[1, 1, 0, 0] = np.nan
    positions, turned = FrameDecoder(*CHAIN, backend=backend).forward_kinematics(rotations, roots)
    assert np.isnan(positions).any(-1).tolist() == [[False] * 3, [False, False, True]]
    assert np.isnan(turned).any((-2, -1)).tolist() == [[False] * 3, [False, True, True]]


# ------------------------------------------------------------------------------------------------ memory and threads


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_and_strided_arguments_are_taken_and_never_written(backend: str) -> None:
    decoder = FrameDecoder(*CHAIN, backend=backend)
    features = random_features(5, 3).astype(np.float32)
    expected = decoder.decode(features.astype(np.float64), with_joints=True)
    for given in (features, np.asfortranarray(features.astype(np.float64)), np.repeat(features, 2, axis=1)[:, ::2]):
        given.setflags(write=False)
        assert_equal(decoder.decode(given, with_joints=True), expected)
    frozen = expected.rotations.copy(order="F"), np.repeat(expected.root_positions, 2, axis=0)[::2]
    for array in frozen:
        array.setflags(write=False)
    joints = decoder.forward_kinematics(*frozen)
    assert_equal(joints, (expected.joint_positions, expected.joint_rotations), TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_are_fresh_memory_and_the_skeleton_is_copied(backend: str) -> None:
    parents, offsets = np.array(CHAIN[0]), np.array(CHAIN[1])
    decoder = FrameDecoder(parents, offsets, backend=backend)
    features = random_features(4, 3)
    first = decoder.decode(features, with_joints=True)
    kept = [np.copy(value) for value in first]
    parents[:], offsets[:] = 0, 0.0
    second = decoder.decode(features, with_joints=True)
    assert_equal(second, first)
    for array in (*second[:2], *second[4:], *decoder.forward_kinematics(*second[:2])):
        array[...] = -1.0
    assert_equal(first, tuple(kept))


def test_threads_share_a_decoder() -> None:
    decoder = FrameDecoder(PARENTS, OFFSETS, backend="cpu")
    chunks = [random_features(40, 22, seed) for seed in range(8)]
    expected = [decoder.decode(chunk, with_joints=True) for chunk in chunks]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda chunk: decoder.decode(chunk, with_joints=True), chunks * 4))
    for actual, wanted in zip(results, expected * 4, strict=True):
        assert_equal(actual, wanted)


@pytest.mark.parametrize("operation", ["frame_decoder", "frame_decoder_forward_kinematics"])
def test_other_python_threads_run_while_the_kernel_works(operation: str) -> None:
    kernel = getattr(compiled_kernels("frame_decoder"), operation)
    skeleton = np.array(PARENTS, dtype=np.int64), np.array(OFFSETS)
    arguments = (np.tile(np.eye(3), (200, 22, 1, 1)), np.zeros((200, 3)), *skeleton)
    if operation == "frame_decoder":
        arguments = (random_features(200, 22), 0.0, 0.0, 0.0, *skeleton, True)
    deadline, stop, calls = time.monotonic() + 10.0, threading.Event(), 0

    def work() -> None:
        nonlocal calls
        while not stop.is_set() and time.monotonic() < deadline:
            kernel(*arguments)
            calls += 1

    worker, interval = threading.Thread(target=work), sys.getswitchinterval()
    sys.setswitchinterval(60.0)  # a thread keeps the interpreter until it lets go of it, which only the kernel does
    try:
        worker.start()
        while calls < 3 and worker.is_alive():
            time.sleep(0.0001)
        assert time.monotonic() < deadline
    finally:
        stop.set()
        worker.join()
        sys.setswitchinterval(interval)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(44,), (2, 43), (2, 45), (1, 2, 44), ()], ids=str)
def test_features_of_another_shape_are_refused(backend: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"features has shape .* expected \(T, 44\)"):
        FrameDecoder(*CHAIN, backend=backend).decode(np.zeros(shape))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "rotations", "roots"),
    [
        ("local_rotations", (2, 4, 3, 3), (2, 3)),
        ("local_rotations", (3, 3, 3), (3,)),
        ("local_rotations", (2, 3, 9), (2, 3)),
        ("root_positions", (2, 3, 3, 3), (1, 3)),
        ("root_positions", (2, 3, 3, 3), (2, 2)),
        ("root_positions", (2, 3, 3, 3), (3,)),
    ],
)
def test_frames_of_another_shape_are_refused(backend: str, name: str, rotations: tuple, roots: tuple) -> None:
    with pytest.raises(ShapeError, match=f"{name} has shape"):
        FrameDecoder(*CHAIN, backend=backend).forward_kinematics(np.zeros(rotations), np.zeros(roots))


@pytest.mark.parametrize("parents", [(), (0,), (-1, 1), (-1, -1), (-1, 2, 0), (-1, 0, 5)], ids=str)
def test_parents_that_do_not_come_before_their_children_are_refused(parents: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match="expected -1 for joint 0"):
        FrameDecoder(parents, np.zeros((len(parents), 3)))


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected \(3, 3\)"):
        FrameDecoder(CHAIN[0], np.zeros((4, 3)))
    with pytest.raises(ParameterError, match="offsets contain NaN"):
        FrameDecoder(CHAIN[0], np.full((3, 3), np.nan))


# ------------------------------------------------------------------------------------------------------- backends


def test_auto_takes_the_compiled_kernel_and_an_unknown_backend_is_refused() -> None:
    assert FrameDecoder(*CHAIN).backend == "cpu"
    assert FrameDecoder(*CHAIN, backend="reference").backend == "reference"
    with pytest.raises(BackendError, match="Backends: auto, reference, cpu"):
        FrameDecoder(*CHAIN, backend="tpu")


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_a_missing_build_raises_and_says_how_to_build(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    compiled_kernels("frame_decoder")  # imported, so that there is an attribute to take away
    monkeypatch.delattr(llamo_ros, "_kernels")
    monkeypatch.setitem(sys.modules, "llamo_ros._kernels", None)
    with pytest.raises(BackendError, match=r"pip install \."):
        StreamingDecoder(backend=backend)
    clip = StreamingDecoder(backend="reference").decode(random_features(1, 22))
    assert isinstance(clip, MotionClip)
