"""PathLimiter: any reference to a path of limited position, velocity, acceleration and jerk.

N coordinates in G groups of D: the joints of a robot (D = 1), or a point in space (D = 3), whose length is what limits
hold for. T frames.

Why the limits never contradict one another. At each frame the limiter holds a *way to rest*: the frames in which it
would come to rest from here, inside all limits. At the start, at rest, that is to stay. A frame is only planned

- as the first frame of another way to rest that has been checked against every limit, or
- as the first frame of ``way + share * (wish - way)``, between the way to rest it holds and a wish that breaks limits.

Velocity, acceleration and jerk are differences of positions, so that each limit bounds a linear function of the path by
a convex set. What is inside all of them is convex, and the way to rest is inside: the largest share for which the mix
is inside is at least 0, is found in closed form, and the rest of the mix is the next way to rest. So by induction from
every planned frame there is a braking path inside position, velocity, acceleration and jerk limits, and whatever comes
in, there is a next frame. Where a limit is tightened on the way, or a path starts outside, the way to rest itself is
taken as the limit where it is further out: nothing gets worse, and it ends inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from llamo_ros.retarget.manoeuvres import Brakes, Catches, durations, size
from llamo_ros.retarget.path_mixing import filled, mixed

FloatArray = NDArray[np.float64]

# Share of acceleration and jerk with which a coordinate that fell behind closes in on its reference: the rest is for
# the reference's own, so that it does not overshoot.
_APPROACH = 0.7
_ROUNDING = 1e-9  # of a limit; what a reference may exceed it by and still count as inside
_LARGEST = 1e9  # [1/frame] and so on; a limit beyond, such as the largest number there is, would overflow in its square
_USUAL_BRAKE = 8  # frames; the way to rest that is tried first
_HARD, _EARLY = (0.0, 0.01, 0.1, 1000.0), (1.0, 3.0)  # smoothness and earliness of brakes where there is little room
_SHORT = 8  # frames; longer manoeuvres are only tried where no short one is inside the limits
_LONGEST = 400  # frames; of a manoeuvre


@dataclass
class ClampCounts:
    """What a limiter had to change, in groups times frames.

    Attributes:
        position: References from which one could not brake before a position limit.
        velocity: References that asked for more than the velocity limit.
        acceleration: References that asked for more than the acceleration limit.
        jerk: References that asked for more than the jerk limit.
    """

    position: int = 0
    velocity: int = 0
    acceleration: int = 0
    jerk: int = 0


class PathLimiter:
    """Follows a reference exactly where it is inside the limits and can be left by braking; else as closely as it can.

    Args:
        lower: Position limits, shape (N,); may be infinite, and are where D > 1.
        upper: Position limits, shape (N,); may be infinite, and are where D > 1.
        velocity: Limits of the velocity, shape (G,), [1/s].
        acceleration: Limits of the acceleration, shape (G,), [1/s^2].
        jerk: Limits of the jerk, shape (G,), [1/s^3]; may be infinite.
        frame_rate: Frames per second, [Hz].
        width: D; groups are neighbouring coordinates.
    """

    def __init__(
        self,
        lower: FloatArray,
        upper: FloatArray,
        velocity: FloatArray,
        acceleration: FloatArray,
        jerk: FloatArray,
        frame_rate: float,
        width: int = 1,
    ) -> None:
        self.counts = ClampCounts()
        self.speed = 1.0  # share of the velocity limits that may be used; > 0, may change at any time
        self._lower, self._upper, self._width = lower, upper, width
        self._is_bounded = width == 1 and bool(np.isfinite(lower).any() or np.isfinite(upper).any())
        # A jerk above twice the acceleration limit per frame bounds nothing.
        self._limits = np.array(
            [
                velocity / frame_rate,
                acceleration / frame_rate**2,
                np.minimum(jerk / frame_rate**3, 2.001 * acceleration / frame_rate**2),
            ]
        )
        self._limits = np.minimum(self._limits, _LARGEST)
        v, a, j = self._limits
        # Frames that a smooth brake takes from full velocity at full acceleration, and a margin.
        needed = 1.3 * np.maximum(1.5 * v / a, np.sqrt(6.0 * v / j)).max() + 2.0 * (a / j).max() + 3.0
        self._durations = durations(int(min(max(needed, 24.0), _LONGEST)))
        self._all_brakes, self._catches = _catalogues(self._durations)
        self._brakes = self._all_brakes[1:]
        self._history: FloatArray | None = None  # the last three positions, (3, N)
        self._way = np.zeros((1, len(lower)))  # to rest, from the frame after the last, (M, N)
        self._is_shortest = True  # whether that way is the shortest there is, or what is left of one
        self._target: FloatArray | None = None  # of the last frame

    @property
    def has_started(self) -> bool:
        """Whether there is a position to go on from."""
        return self._history is not None

    @property
    def position(self) -> FloatArray:
        """The last position, shape (N,)."""
        return self._history[-1]

    @property
    def moved_by(self) -> float:
        """The most that a coordinate moved by in one of the last two frames."""
        return float(np.abs(np.diff(self._history, axis=0)).max())

    @property
    def is_behind(self) -> bool:
        """Whether some group is not where its last target was, or has none."""
        return bool(self._behind().any())

    def start(self, position: FloatArray) -> None:
        """Begin at rest at a position (N,)."""
        self.resume(np.tile(position, (3, 1)), position[None])

    def resume(self, history: FloatArray, way: FloatArray) -> None:
        """Go on from somewhere on a path that was planned before.

        Args:
            history: The last positions, shape (H, N), H >= 1; before the first of them it was at rest.
            way: What was planned after them, to rest, shape (M, N), M >= 1.
        """
        last = history[-3:]
        self._history = np.concatenate([np.tile(last[:1], (3 - len(last), 1)), last])
        self._way, self._is_shortest = np.array(way), False
        self._target = None

    def forget_target(self) -> None:
        """The next target does not continue the last one."""
        self._target = None

    def follow(self, targets: FloatArray) -> FloatArray:
        """Plan as many frames as there are targets (T, N), finite numbers; shape (T, N)."""
        if not len(targets):
            return targets.copy()
        clipped = np.clip(targets, self._lower, self._upper) if self._is_bounded else targets
        path = clipped.copy()
        if self._history is None:
            self.start(clipped[0])
            self._target = clipped[0].copy()
            path[1:] = self.follow(clipped[1:])
            return path
        limits, is_behind = self._scaled_limits(), self._behind()
        if self._is_bounded:
            is_behind |= (self._history[-1] < self._lower) | (self._history[-1] > self._upper)
        whole = np.concatenate([self._history, path])
        v = whole[1:] - whole[:-1]
        a = v[1:] - v[:-1]
        j = a[1:] - a[:-1]
        inside = ~is_behind
        for differences, limit in zip((v[2:], a[1:], j), limits * (1 + _ROUNDING), strict=True):
            inside &= (size(differences, self._width) <= limit).all(axis=0)
        state = np.stack([v[-1], a[-1]])
        way, can_brake = _way(self._all_brakes, path[-1], state, limits, self._lower, self._upper, self._width)
        slow = ~(inside & can_brake)
        if slow.any():
            columns = np.repeat(slow, self._width)
            path[:, columns], rest = self._follow_slowly(targets[:, columns], np.flatnonzero(slow), columns)
            way = filled(way, max(len(way), len(rest))).copy()
            way[:, columns] = filled(rest, len(way))
        self._history = np.concatenate([self._history, path])[-3:]
        self._way, self._is_shortest = way, False
        self._target = clipped[-1].copy()
        return path

    def brake(self, frames: int) -> FloatArray:
        """Plan frames on the shortest way to rest, and at rest after that, shape (frames, N)."""
        way = self.way_to_rest()
        path = filled(way, max(len(way), frames))[:frames]
        self._history = np.concatenate([self._history, path])[-3:]
        self._way = way[min(frames, len(way) - 1) :]
        self._target = None
        return path.copy()

    def way_to_rest(self) -> FloatArray:
        """The shortest way to rest from the last frame on, shape (M, N), M >= 1."""
        if not self._is_shortest:
            self._way, self._is_shortest = self.way_to_rest_from(self._history, self._way), True
        return self._way

    def way_to_rest_from(self, history: FloatArray, known: FloatArray | None = None) -> FloatArray:
        """The shortest way to rest from the last of three positions (3, N), shape (M, N), M >= 1.

        Args:
            history: The positions.
            known: A way to rest for those groups for which the catalogue has none inside the limits, shape (M', N).
        """
        v = history[1:] - history[:-1]
        state = np.stack([v[1], v[1] - v[0]])
        if not state.any():
            return history[-1:].copy()
        limits = self._scaled_limits()
        limits[0] = np.maximum(limits[0], size(v[1], self._width))
        way, can_brake = _way(self._brakes, history[-1], state, limits, self._lower, self._upper, self._width)
        if known is not None and not can_brake.all():
            kept, length = np.repeat(~can_brake, self._width), max(len(way), len(known))
            way = filled(way, length).copy()
            way[:, kept] = filled(known, length)[:, kept]
        moves = np.flatnonzero((way != way[-1]).any(axis=1))
        return way[: moves[-1] + 2 if len(moves) else 1]

    def _scaled_limits(self) -> FloatArray:
        limits = self._limits.copy()
        limits[0] *= self.speed
        return limits

    def _behind(self) -> NDArray[np.bool_]:
        """Which groups are not where their last target was."""
        if self._target is None:
            return np.ones(self._limits.shape[1], dtype=bool)
        return size(self._history[-1] - self._target, self._width) > 1e-12

    def _follow_slowly(
        self, targets: FloatArray, groups: NDArray[np.int64], columns: NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray]:
        """Frame by frame for the groups that cannot simply go along; returns their path and their way to rest."""
        width, limits = self._width, self._scaled_limits()[:, groups]
        tolerant = limits * (1 + _ROUNDING)
        history, way = self._history[:, columns], self._way[:, columns]
        before = None if self._target is None else self._target[columns]
        lower, upper = self._lower[columns], self._upper[columns]
        path = np.empty_like(targets)
        for k, target in enumerate(targets):
            q = history[-1]
            if self._is_bounded:  # who starts outside only moves inwards
                target = np.clip(target, np.minimum(lower, q), np.maximum(upper, q))
            v, v_before = q - history[-2], history[-2] - history[-3]
            a = v - v_before
            # The reference itself, if it was followed so far.
            direct = target - q
            sizes = np.stack([size(direct, width), size(direct - v, width), size(direct - v - a, width)])
            over = sizes > tolerant
            self.counts.velocity += int(over[0].sum())
            self.counts.acceleration += int(over[1].sum())
            self.counts.jerk += int(over[2].sum())
            follows = ~over.any(axis=0)
            if before is None:
                follows[:] = False
            else:
                follows &= size(q - before, width) <= 1e-12
            if follows.all():
                following = target.copy()
            else:
                speed = np.zeros_like(target) if before is None else target - before
                caught, is_inside = self._catch(q, v, a, target, speed, limits)
                following = np.where(np.repeat(follows, width), target, caught)
                is_inside |= follows
            inside = follows if follows.all() else is_inside
            state = np.stack([following - q, following - q - v])
            rest, can_brake = _way(self._brakes, following, state, limits, lower, upper, width)
            wish = np.concatenate([following[None], rest])
            if self._is_bounded:
                self.counts.position += int((inside & ~can_brake).sum())
            inside = inside & can_brake
            if width == 1:
                inside &= (following >= np.minimum(lower, q)) & (following <= np.maximum(upper, q))
            if not inside.all():
                wish = mixed(history, way, wish, limits, lower, upper, width, inside)
            history = np.concatenate([history[1:], wish[:1]])
            path[k], way, before = wish[0], wish[1:], target
        return path, way

    def _catch(
        self,
        q: FloatArray,
        v: FloatArray,
        a: FloatArray,
        target: FloatArray,
        speed: FloatArray,
        limits: FloatArray,
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """The next position (N,) on the shortest way to a target that goes on at its speed; whether it keeps limits."""
        width = self._width
        fast = np.repeat(size(speed, width) > limits[0], width)
        speed = np.where(fast, 0.0, speed)  # a jump has no velocity that one could match
        gap = target - speed - q
        # What is far is approached by way of a nearer point, which the longest manoeuvre can just reach.
        longest = self._durations[-1]
        room = np.maximum(limits[0] - size(speed, width), 0.1 * limits[0])
        far = np.minimum(room * longest / 1.875, _APPROACH * limits[1] * longest**2 / 5.78)
        far = 0.97 * np.minimum(far, _APPROACH * limits[2] * longest**3 / 60.0)
        gap *= np.repeat(np.minimum(1.0, far / np.maximum(size(gap, width), 1e-300)), width)
        state = np.stack([-gap, v - speed, a, speed])
        share = np.array([[1.0], [_APPROACH], [_APPROACH]])
        distance, first = np.empty_like(q), np.zeros(limits.shape[1], dtype=bool)
        found = np.zeros_like(first)
        short, long = self._catches
        reserved = limits * share
        for catches, allowed in ((short, reserved), (long, reserved), (short, limits), (long, limits)):
            groups, columns = np.flatnonzero(~found), np.repeat(~found, width)
            excess = catches.excess(state[:, columns], allowed[:, groups], width)
            is_inside = excess <= 1 + _ROUNDING
            found[groups] = is_inside.any(axis=0)
            chosen = np.where(found[groups], is_inside.argmax(axis=0), excess.argmin(axis=0))
            distance[columns] = catches.first(np.repeat(chosen, width), state[:, columns])
            first[groups] = (chosen == 0) & (catches is short)
            if found.all():
                break
        # exactly onto the target where the first manoeuvre, which takes one frame, is chosen
        lands = np.repeat(found & first & (size(target - speed - q - gap, width) == 0), width)
        return np.where(lands, target, q + gap + speed + distance), found


@lru_cache(maxsize=8)
def _catalogues(frames: tuple[int, ...]) -> tuple[tuple[Brakes, ...], tuple[Catches, ...]]:
    """Brakes in the order in which they are tried, and ways to catch up.

    First the usual brake, for which there is nearly always room, then all from short to long, then those that brake
    early, which are needed next to a position limit.
    """
    parts = [k for k in frames if k <= _SHORT], [k for k in frames if k > _SHORT]
    usual, hard = Brakes([_USUAL_BRAKE], [1000.0]), Brakes(frames, _HARD, _EARLY)
    return (usual, *map(Brakes, parts), hard), tuple(map(Catches, parts))


def _way(
    catalogues: tuple[Brakes, ...],
    position: FloatArray,
    state: FloatArray,
    limits: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    width: int,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """The first way to rest inside all limits that catalogues have, (M, N), and for which groups (G,) there is one.

    Where there is none, the way of the last catalogue that exceeds limits least.
    """
    way, can_brake = position[None], np.zeros(limits.shape[1], dtype=bool)
    for brakes in catalogues:
        groups = np.flatnonzero(~can_brake)
        columns = np.repeat(~can_brake, width)
        start, moving = position[columns], state[:, columns]
        chosen, found = _choose(brakes, start, moving, limits[:, groups], lower[columns], upper[columns], width)
        part = start + brakes.paths(chosen, moving)
        if len(groups) == len(can_brake):
            way, can_brake = part, found
        else:
            way = filled(way, max(len(way), len(part))).copy()
            way[:, columns] = filled(part, len(way))
            can_brake[groups] = found
        if can_brake.all():
            break
    return way, can_brake


def _choose(
    brakes: Brakes,
    position: FloatArray,
    state: FloatArray,
    limits: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    width: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The first manoeuvre inside the limits for each coordinate (N,), and for which groups (G,) there is one."""
    excess = brakes.excess(state, limits, width)
    if width == 1:
        least, most = brakes.reach(state)
        low, high = np.minimum(lower, position), np.maximum(upper, position)
        excess = np.where((position + least < low) | (position + most > high), excess + 1e6, excess)
    is_inside = excess <= 1 + _ROUNDING
    found = is_inside.any(axis=0)
    chosen = is_inside.argmax(axis=0)
    if not found.all():
        chosen = np.where(found, chosen, excess.argmin(axis=0))
    return np.repeat(chosen, width), found
