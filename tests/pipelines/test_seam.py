from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamo_ros.motion.clip import MotionClip, concatenated
from llamo_ros.motion.representation272 import encode_clip
from llamo_ros.motion.rotations import geodesic_angle
from llamo_ros.pipelines.seam import FADE_FRAMES, Seam


def test_an_exact_reconstruction_changes_nothing(random_clip: Callable[..., MotionClip]) -> None:
    clip = random_clip(seed=1, frames=40)
    seam = Seam(clip.sliced(19, 20), encode_clip(clip)[19])
    joined = seam.joined(clip.sliced(20))
    np.testing.assert_allclose(joined.rotations, clip.rotations[20:], atol=1e-12)
    np.testing.assert_allclose(joined.root_positions, clip.root_positions[20:], atol=1e-12)


@pytest.mark.parametrize("parts", [(40,), (4,) * 10, (1, 11, 28)])
def test_an_error_fades_out_from_the_seam_on_however_the_frames_come(
    random_clip: Callable[..., MotionClip], parts: tuple[int, ...]
) -> None:
    given, other = random_clip(seed=1, frames=20), random_clip(seed=2, frames=60)
    seam = Seam(given.sliced(19), encode_clip(other)[19])
    new = other.sliced(20)
    starts = np.cumsum((0, *parts))
    joined = concatenated([seam.joined(new.sliced(a, b)) for a, b in zip(starts[:-1], starts[1:], strict=True)])
    # Without the pelvis, whose heading each of the two has of its own.
    error = geodesic_angle(other.rotations[19, 1:], given.rotations[19, 1:])
    off = geodesic_angle(new.rotations[:, 1:], joined.rotations[:, 1:])
    assert error.min() > 0.05
    np.testing.assert_allclose(off[0], error, rtol=0.01)  # the fade has begun with less than 1 %
    assert (np.diff(off[: FADE_FRAMES + 1], axis=0) < 0).all()
    np.testing.assert_allclose(off[FADE_FRAMES:], 0.0, atol=1e-6)
    rise = joined.root_positions[:, 1] - new.root_positions[:, 1]
    assert rise[0] == pytest.approx(given.root_positions[19, 1] - other.root_positions[19, 1], rel=0.01)
    np.testing.assert_allclose(joined.root_positions[:, [0, 2]], new.root_positions[:, [0, 2]])
