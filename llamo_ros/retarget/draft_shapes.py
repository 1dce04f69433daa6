"""First guesses of what an unknown humanoid fills of space: soles and capsules, from joints, shapes and inertia.

All lengths in metres. Ratios are those of the robots whose profiles were written by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import RobotError
from llamo_ros.retarget.anatomy import Anatomy, Chain, words_of
from llamo_ros.retarget.robot import LinkPoses, RobotModel
from llamo_ros.retarget.shapes import Solid, corners_of

FloatArray = NDArray[np.float64]

HAND_SHARE = 0.85  # of the way from elbow to the tip of an arm that ends in its forearm
_THINNEST = 1e-3
_SOLE_DEPTH = 0.01  # what lies this little above the lowest point is the sole
_FOOT_LENGTH, _FOOT_WIDTH, _HEEL_SHARE = 0.28, 0.14, 0.4  # of the leg, of the leg, of the foot behind the ankle


class ShapeDraft:
    """Guesses soles and capsules of one robot."""

    def __init__(self, model: RobotModel, anatomy: Anatomy, solids: dict[int, list[Solid]]) -> None:
        self.model, self.anatomy, self.solids = model, anatomy, solids
        self.zero: LinkPoses = model.link_poses(np.zeros((1, model.joint_count)))
        self.notes: list[str] = []

    def sole(self, leg: Chain) -> list[list[float]]:
        """Four corners of a sole in the frame of the foot link."""
        turn = self.anatomy.facing @ self.zero.rotations[0, leg.end]  # foot link to forward, left, up
        corners = corners_of(self.solids.get(leg.end, []), "collision", "visual") @ turn.T
        if len(corners):
            low = corners[corners[:, 2] < corners[:, 2].min() + _SOLE_DEPTH]
            (x_0, y_0, z), (x_1, y_1, _) = low.min(axis=0), low.max(axis=0)
        else:
            length = float(
                np.linalg.norm(np.diff(self._places([leg.start, leg.middle, leg.end]), axis=0), axis=1).sum()
            )
            z, how = self._sole_height(leg, turn)
            x_0, x_1 = -_HEEL_SHARE * _FOOT_LENGTH * length, (1 - _HEEL_SHARE) * _FOOT_LENGTH * length
            y_0, y_1 = -0.5 * _FOOT_WIDTH * length, 0.5 * _FOOT_WIDTH * length
            self.notes.append(
                f"{leg.side} sole: the foot's shape is unknown (a mesh?); length and width are guessed from the leg, "
                f"height from {how}"
            )
        rows = np.array([[x_0, y_1, z], [x_0, y_0, z], [x_1, y_1, z], [x_1, y_0, z]]) @ turn
        return rows.round(4).tolist()

    def _sole_height(self, leg: Chain, turn: FloatArray) -> tuple[float, str]:
        for link in range(len(self.model.link_names)):
            if self.model.parents[link] == leg.end and "sole" in words_of(self.model.link_names[link]):
                place = self.zero.rotations[0, leg.end].T @ (self.zero.positions[0, link] - self._places([leg.end])[0])
                return float((turn @ place)[2]), f"link {self.model.link_names[link]}"
        inertia = corners_of(self.solids.get(leg.end, []), "inertia") @ turn.T
        if len(inertia):
            return float(inertia[:, 2].min()), "its inertia"
        return -0.05, "nothing (0.05 m)"

    def hand_point(self, arm: Chain) -> list[float]:
        """Where the hand is on an arm that ends in its forearm, in the frame of that link."""
        tip = arm.tip
        if np.linalg.norm(tip) < 0.05:
            upper = np.linalg.norm(np.diff(self._places([arm.start, arm.middle]), axis=0))
            tip = np.array([0.0, 0.0, -upper])
            self.notes.append(f"{arm.side} hand: nothing says how long the forearm is; guessed along -z")
        else:
            self.notes.append(f"{arm.side} hand: no link is there; its place on the forearm is guessed from the shape")
        return (HAND_SHARE * tip).round(4).tolist()

    def capsules(self, soles: dict[str, list[list[float]]]) -> dict[str, dict[str, Any]]:
        """Capsules by name, as a profile has them."""
        found = self._trunk()
        for limb in self.anatomy.limbs:
            upper, lower = ("upper_arm", "forearm") if limb.kind == "arm" else ("thigh", "shank")
            carrier = limb.bodies[limb.bodies.index(limb.middle) - 1]
            start, middle, end = self._places([limb.start, limb.middle, limb.end])
            found[f"{limb.side}_{upper}"] = self._rod(carrier, start, middle, 0.1, 0.92)
            if limb.end == limb.middle:
                end = middle + self.zero.rotations[0, limb.middle] @ np.array(self._hand_of(limb))
                found[f"{limb.side}_{lower}"] = self._rod(limb.middle, middle, end, 0.1, 1.0)
                continue
            found[f"{limb.side}_{lower}"] = self._rod(limb.middle, middle, end, 0.1, 0.8)
            if limb.kind == "leg":
                found[f"{limb.side}_foot"] = self._foot(limb, np.array(soles[limb.side]))
            elif np.linalg.norm(limb.tip) > 0.05:
                tip = end + self.zero.rotations[0, limb.end] @ limb.tip
                found[f"{limb.side}_hand"] = self._rod(limb.end, end, tip, 0.1, 0.75)
        return found

    def _hand_of(self, arm: Chain) -> FloatArray:
        return HAND_SHARE * arm.tip

    def _places(self, links: list[int]) -> FloatArray:
        return self.zero.positions[0, links]

    def _entry(self, link: int, start: FloatArray, end: FloatArray, radius: float) -> dict[str, Any]:
        """A capsule between two points of the root's frame at zero, in the frame of a link."""
        if radius < _THINNEST:
            raise RobotError(
                f"what hangs on link {self.model.link_names[link]!r} is less than a millimetre thick: are the lengths "
                "of the robot description in metres?"
            )
        turn, place = self.zero.rotations[0, link], self.zero.positions[0, link]
        ends = ((np.stack([start, end]) - place) @ turn).round(4) + 0.0
        return {
            "link": self.model.link_names[link],
            "from": ends[0].tolist(),
            "to": ends[1].tolist(),
            "radius": round(float(radius), 3),
        }

    def _rod(self, link: int, start: FloatArray, end: FloatArray, first: float, last: float) -> dict[str, Any]:
        length = float(np.linalg.norm(end - start))
        radius = float(np.clip(self._thickness(link, 0.15 * length), 0.1 * length, 0.18 * length))
        return self._entry(link, start + first * (end - start), start + last * (end - start), radius)

    def _thickness(self, link: int, default: float) -> float:
        """Half of the two smaller edges of the largest box on a body."""
        solids = [solid for solid in self.solids.get(link, []) if solid.source in ("inertia", "collision")]
        solids = solids or self.solids.get(link, [])
        if not solids:
            return default
        largest = max(solids, key=lambda solid: float(np.prod(solid.half)))
        return float(np.sort(largest.half)[:2].mean())

    def _foot(self, leg: Chain, sole: FloatArray) -> dict[str, Any]:
        turn = self.anatomy.facing @ self.zero.rotations[0, leg.end]
        corners = sole @ turn.T
        (x_0, y_0, z), (x_1, y_1, _) = corners.min(axis=0), corners.max(axis=0)
        radius = float(np.clip(0.5 * (y_1 - y_0), 0.02, 0.04))
        y, z = 0.5 * (y_0 + y_1), z + radius
        ends = np.array([[x_0 + radius, y, z], [x_1 - radius, y, z]]) @ turn
        places = self.zero.positions[0, leg.end] + ends @ self.zero.rotations[0, leg.end].T
        return self._entry(leg.end, places[0], places[1], radius)

    def _trunk(self) -> dict[str, dict[str, Any]]:
        anatomy = self.anatomy
        _, left, up = anatomy.facing
        hips = self._places([limb.start for limb in anatomy.limbs if limb.kind == "leg"])
        width, middle = 0.5 * abs(left @ (hips[0] - hips[1])), hips.mean(axis=0)
        radius = float(np.clip(0.6 * width, 0.06, 0.08))
        centre = middle + up * min(0.1, 0.4 * abs(up @ (self._places([anatomy.pelvis])[0] - middle)))
        found = {"pelvis": self._across(anatomy.pelvis, centre, 0.35 * width, radius)}
        shoulders = self._places([limb.start for limb in anatomy.limbs if limb.kind == "arm"])
        if not len(shoulders):
            return found
        width = 0.5 * abs(left @ (shoulders[0] - shoulders[1]))
        top, base = shoulders.mean(axis=0), self._places([anatomy.chest])[0]
        base = base + (top - base) @ anatomy.facing[0] * anatomy.facing[0]
        height = up @ (top - base)
        if height < 0.5 * width or anatomy.chest == anatomy.pelvis:
            base, height = middle, up @ (top - middle)
        found["belly"] = self._across(anatomy.chest, base + 0.4 * height * up, 0.22 * width, min(0.55 * width, 0.1))
        found["chest"] = self._across(anatomy.chest, base + 0.85 * height * up, 0.35 * width, min(0.6 * width, 0.11))
        head = anatomy.head if anatomy.head is not None else anatomy.chest
        centre, radius = top + 1.2 * width * up, min(0.5 * width, 0.09)
        if anatomy.head is not None and self.solids.get(head):
            solid = max(self.solids[head], key=lambda solid: float(np.prod(solid.half)))
            centre = self.zero.positions[0, head] + self.zero.rotations[0, head] @ solid.centre
            radius = float(np.clip(solid.half.mean(), 0.05, 0.1))
        elif anatomy.head is None:
            self.notes.append("head: no neck joint was found; its capsule is guessed above the shoulders")
        found["head"] = self._entry(head, centre, centre, radius)
        return found

    def _across(self, link: int, centre: FloatArray, half: float, radius: float) -> dict[str, Any]:
        left = self.anatomy.facing[1]
        return self._entry(link, centre - half * left, centre + half * left, radius)
