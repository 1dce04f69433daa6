"""Anatomy: which links of an unknown humanoid are its legs, arms, trunk and head.

Found from the kinematic tree alone; names only tell left from right where the tree cannot, set grippers apart, and are
a second opinion. Bodies are what moves as one: a link that a movable joint carries, with all that is fixed to it. The
robot is looked at with all joints at zero, where it is expected to stand upright.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamo_ros.core.errors import RobotError
from llamo_ros.retarget.robot import RobotModel
from llamo_ros.retarget.shapes import Solid, corners_of

FloatArray = NDArray[np.float64]

_SIDES = {"left": ("left", "l"), "right": ("right", "r")}
_GRIPPER = ("gripper", "finger", "thumb", "index", "middle", "ring", "pinky", "little", "claw", "jaw", "knuckle")
_LIMB_WORDS = {
    "leg": ("leg", "hip", "knee", "ankle", "foot", "thigh", "shank", "calf", "toe"),
    "arm": ("arm", "shoulder", "elbow", "wrist", "hand", "forearm"),
}
_MIDDLE_WORDS = {"leg": ("knee",), "arm": ("elbow",)}
_LONGEST_ARM = 7  # joints; what follows is a hand
_SHORTEST_LIMB = 3  # joints
_SAMPLES = 64  # postures in which a segment's length is measured


@dataclass(frozen=True)
class Chain:
    """A leg or an arm: links from trunk to end.

    Attributes:
        kind: ``leg`` or ``arm``.
        side: ``left`` or ``right``.
        bodies: Links that its joints carry, from the trunk on, indices.
        start: Hip or shoulder: the link where the upper segment starts.
        middle: Knee or elbow.
        end: Foot or hand; the same as ``middle`` for an arm that ends in its forearm.
        tip: Where the last body ends, in the frame of ``end``, shape (3,), [m].
    """

    kind: str
    side: str
    bodies: tuple[int, ...]
    start: int
    middle: int
    end: int
    tip: FloatArray


@dataclass(frozen=True)
class Anatomy:
    """What was found.

    Attributes:
        pelvis: Link that the legs hang on.
        chest: Link that the arms hang on.
        head: Last link of a neck; None for a robot without.
        limbs: Left arm, right arm, left leg, right leg; arms may be missing.
        facing: Rotation from the root link's axes to forward, left, up, shape (3, 3).
        notes: What is uncertain, in words.
    """

    pelvis: int
    chest: int
    head: int | None
    limbs: tuple[Chain, ...]
    facing: FloatArray
    notes: tuple[str, ...]


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: ``Left_HipPitch2`` is left, hip, pitch."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def find_anatomy(model: RobotModel, solids: dict[int, list[Solid]]) -> Anatomy:
    """Find the limbs of a robot.

    Args:
        model: Its kinematic tree.
        solids: How big its bodies are, of :func:`llamo_ros.retarget.shapes.body_solids`.

    Raises:
        RobotError: it has no two legs, so that it is not a humanoid.
    """
    return _Finder(model, solids).find()


class _Finder:
    def __init__(self, model: RobotModel, solids: dict[int, list[Solid]]) -> None:
        self.model, self.solids, self.notes = model, solids, []
        zero = model.link_poses(np.zeros((1, model.joint_count)))
        self.places = zero.positions[0]
        self.axes = model.joint_axes(zero)[0][0]
        self.bodies = [link for link in range(len(model.link_names)) if link == 0 or model.link_joints[link] >= 0]
        self.above = {link: self._body_of(int(model.parents[link])) for link in self.bodies if link}

    def find(self) -> Anatomy:
        ends = [link for link in self.bodies if link not in self.above.values()]
        chains = {end: self._chain(end) for end in ends}
        legs = self._legs(chains)
        pelvis = self._shared(chains[legs[0]], chains[legs[1]])
        facing = self._facing(legs)
        left, right = sorted(legs, key=lambda end: -(facing @ self.places[end])[1])
        limbs = [self._limb("leg", side, chains[end], pelvis) for side, end in (("left", left), ("right", right))]
        in_legs = {link for limb in limbs for link in limb.bodies}
        rest = {end: chain for end, chain in chains.items() if not in_legs & set(chain)}
        arms, chest = self._arms(rest, facing)
        if not arms:
            self.notes.append("no arms were found: fewer than two other chains of 3 joints lie on both sides")
            chest = self._above_pelvis(rest, pelvis)
        used = in_legs | {link for limb in arms for link in limb.bodies}
        head = self._head({end: chain for end, chain in rest.items() if not used & set(chain)}, chest, facing)
        for limb in (*arms, *limbs):
            self._second_opinion(limb)
        return Anatomy(pelvis, chest, head, (*arms, *limbs), facing, tuple(self.notes))

    def _body_of(self, link: int) -> int:
        while link and self.model.link_joints[link] < 0:
            link = int(self.model.parents[link])
        return link

    def _chain(self, end: int) -> list[int]:
        """Bodies from the first below the root to ``end``."""
        chain = []
        while end:
            chain.append(end)
            end = self.above[end]
        return chain[::-1]

    def _shared(self, first: list[int], second: list[int]) -> int:
        """The last body that two chains have in common; the root if none."""
        common = [a for a, b in zip(first, second, strict=False) if a == b]
        return common[-1] if common else 0

    def _legs(self, chains: dict[int, list[int]]) -> tuple[int, int]:
        """Ends of the two legs: of all pairs of ends that mirror one another, the pair furthest from the trunk's top.

        Which way is up is not known yet, but legs are the pair whose chains are longest in metres.
        """
        pairs = []
        ends = list(chains)
        for i, first in enumerate(ends):
            for second in ends[i + 1 :]:
                shared = self._shared(chains[first], chains[second])
                own = [len(chains[end]) - (chains[end].index(shared) + 1 if shared else 0) for end in (first, second)]
                if own[0] == own[1] >= _SHORTEST_LIMB:
                    pairs.append((first, second, shared))
        if not pairs:
            raise RobotError(
                f"robot {self.model.name!r} has no two chains of {_SHORTEST_LIMB} or more joints that could be legs."
            )

        def lowness(pair: tuple[int, int, int]) -> tuple[bool, float]:
            names = [self._words(link) for end in pair[:2] for link in chains[end]]
            named = any(word in words for words in names for word in _LIMB_WORDS["leg"])
            return named, -float(self.places[list(pair[:2]), 2].mean())

        best = max(pairs, key=lowness)
        return best[0], best[1]

    def _facing(self, legs: tuple[int, int]) -> FloatArray:
        """Rotation from the root's axes to forward, left, up; up and left are each the nearest axis."""
        first, second = legs
        down = self.places[[first, second]].mean(axis=0) - self._hip(first, second)
        up = _nearest_axis(-down)
        sides = [self._side(end) for end in legs]
        across = self.places[first] - self.places[second]
        across = _nearest_axis(across - (across @ up) * up)
        if sides[0] == sides[1]:
            self.notes.append("names do not tell left from right: the robot is taken to face along x of its root link")
            left = across if across @ [0, 1, 0] > 0 or (across @ [0, 1, 0] == 0 and across.sum() > 0) else -across
        else:
            left = across if sides[0] == "left" else -across
        facing = np.stack([np.cross(left, up), left, up])
        if not np.allclose(facing, np.eye(3)):
            self.notes.append(
                "its root link does not have x forward, y left, z up (REP-103); rotations in the profile make up for it"
            )
        return facing

    def _hip(self, first: int, second: int) -> FloatArray:
        shared = self._shared(self._chain(first), self._chain(second))
        roots = [next(link for link in self._chain(end) if self.above[link] == shared) for end in (first, second)]
        return self.places[roots].mean(axis=0)

    def _words(self, link: int) -> list[str]:
        joint = self.model.link_joints[link]
        return words_of(self.model.link_names[link]) + (words_of(self.model.joint_names[joint]) if joint >= 0 else [])

    def _side(self, end: int) -> str | None:
        votes = dict.fromkeys(_SIDES, 0)
        for link in self._chain(end):
            words = self._words(link)
            for side, names in _SIDES.items():
                votes[side] += any(name in words for name in names)
        best = max(votes, key=votes.get)
        return best if votes[best] > min(votes.values()) else None

    def _arms(self, chains: dict[int, list[int]], facing: FloatArray) -> tuple[list[Chain], int]:
        """Left and right arm, and the body they hang on."""
        chains = {end: self._without_hand(chain) for end, chain in chains.items()}
        best: tuple[float, list[Chain], int] = (0.0, [], 0)
        ends = list(chains)
        for i, first in enumerate(ends):
            for second in ends[i + 1 :]:
                pair = sorted((first, second), key=lambda end: -(facing @ self.places[chains[end][-1]])[1])
                chest = self._shared(chains[first], chains[second])
                own = [chains[end][chains[end].index(chest) + 1 if chest else 0 :] for end in pair]
                apart = facing[1] @ (self.places[own[0][-1]] - self.places[own[1][-1]]) if all(own) else 0.0
                if min(map(len, own)) < _SHORTEST_LIMB or len(own[0]) != len(own[1]) or apart < 0.1:
                    continue
                length = sum(self._length([chest, *part]) for part in own)
                if length > best[0]:
                    limbs = [
                        self._limb("arm", side, chains[end], chest)
                        for side, end in zip(("left", "right"), pair, strict=True)
                    ]
                    best = length, limbs, chest
        return best[1], best[2]

    def _length(self, chain: list[int]) -> float:
        return float(np.linalg.norm(np.diff(self.places[chain], axis=0), axis=1).sum())

    def _without_hand(self, chain: list[int]) -> list[int]:
        """A chain up to its wrist: without fingers and grippers."""
        for count, link in enumerate(chain):
            if any(word in self._words(link) for word in _GRIPPER) and count >= _SHORTEST_LIMB:
                return chain[:count]
        return chain

    def _limb(self, kind: str, side: str, chain: list[int], trunk: int) -> Chain:
        bodies = chain[chain.index(trunk) + 1 if trunk else 0 :]
        if kind == "arm" and len(bodies) > _LONGEST_ARM:
            self.notes.append(f"{side} arm: joints after the seventh are taken for a hand")
            bodies = bodies[:_LONGEST_ARM]
        end = bodies[-1]
        tip = self._tip(bodies)
        has_wrist = len(bodies) > _SHORTEST_LIMB + 1  # else the arm goes on after its last joint: with the forearm
        middle = self._middle(bodies, 0.0 if kind == "leg" or has_wrist else float(np.linalg.norm(tip)))
        if middle == bodies[0] or (kind == "leg" and middle == end):
            names = ", ".join(self.model.link_names[link] for link in bodies)
            what = "hip, knee and ankle" if kind == "leg" else "shoulder and elbow"
            raise RobotError(
                f"the {side} {kind} of robot {self.model.name!r} was taken to be {names}, but at zero its joints do "
                f"not lie apart as {what} do. Is it a humanoid, and are its lengths in metres?"
            )
        return Chain(kind, side, tuple(bodies), self._start(bodies, middle, end), middle, end, tip)

    def _tip(self, bodies: list[int]) -> FloatArray:
        """Where the last body ends, along the axis on which it reaches furthest from its joint; 0 if nothing is known.

        A rod is twice as long as its centre of mass is far from its end; that is all there is where shapes are meshes.
        """
        solids = self.solids.get(bodies[-1], [])
        reach = [corners_of(solids, "collision", "visual")]
        reach += [2.0 * solid.centre[None] for solid in solids if solid.source == "inertia"]
        points = np.concatenate(reach)
        if not len(points):
            return np.zeros(3)
        ends = np.array([points.min(axis=0), points.max(axis=0)])
        sign, axis = np.unravel_index(np.abs(ends).argmax(), ends.shape)
        tip = 0.5 * ends.sum(axis=0)
        tip[axis] = ends[sign, axis]
        return tip

    def _middle(self, bodies: list[int], tip: float) -> int:
        """Knee or elbow: the joint furthest from both ends of the limb, measured along it, that bends it.

        ``tip``: how much further than its last joint the limb goes, [m].
        """
        steps = np.linalg.norm(np.diff(self.places[bodies], axis=0), axis=1)
        before = np.concatenate([[0.0], np.cumsum(steps)])
        after = before[-1] - before + tip
        best, most = bodies[-1], 0.0
        for k, link in enumerate(bodies):
            axis, came = self.axes[self.model.link_joints[link]], self.places[link] - self.places[bodies[0]]
            bends = np.linalg.norm(np.cross(axis, came)) > 0.5 * np.linalg.norm(came)
            if bends and min(before[k], after[k]) > most:
                best, most = link, min(before[k], after[k])
        return best

    def _start(self, bodies: list[int], middle: int, end: int) -> int:
        """Hip or shoulder: the link before the middle that lies furthest from it, keeps its distance and is in line."""
        model, before = self.model, bodies[: bodies.index(middle)]
        q = np.random.default_rng(0).uniform(model.lower, model.upper, (_SAMPLES, model.joint_count))
        places = model.link_poses(q).positions
        line = self._segment_axis(before, middle, end)
        best, most = before[-1], -np.inf
        for link in before:
            reach = self.places[middle] - self.places[link]
            along = abs(reach @ line)
            beside = float(np.linalg.norm(reach - (reach @ line) * line))
            varies = np.linalg.norm(places[:, link] - places[:, middle], axis=-1).std()
            score = along - 3.0 * beside - 5.0 * varies
            if score > most - 1e-6:  # of links in one place the last one
                best, most = link, score
        return best

    def _segment_axis(self, before: list[int], middle: int, end: int) -> FloatArray:
        """Direction of the upper segment: the axis that twists it, or else that of the lower segment, straight on."""
        whole = self.places[middle] - self.places[before[0]]
        whole = whole / np.linalg.norm(whole)
        for link in before[::-1]:
            axis = self.axes[self.model.link_joints[link]]
            if abs(axis @ whole) > 0.8:
                return axis
        lower = self.places[end] - self.places[middle]
        return lower / np.linalg.norm(lower) if np.linalg.norm(lower) > 0.05 else whole

    def _above_pelvis(self, chains: dict[int, list[int]], pelvis: int) -> int:
        return next((chain[0] for chain in chains.values() if chain), pelvis)

    def _head(self, chains: dict[int, list[int]], chest: int, facing: FloatArray) -> int | None:
        """The end of a short chain on the chest that lies in the middle, above the chest's origin."""
        for end, chain in chains.items():
            place = facing @ (self.places[end] - self.places[chest])
            named = any(word in ("head", "neck") for link in chain for word in self._words(link))
            middle = abs(place[1]) < 0.05 and place[2] > 0.1 and (chest in chain or chest == 0)
            if named or middle:
                return end
        return None

    def _second_opinion(self, limb: Chain) -> None:
        """Say where names contradict what the tree says."""
        names = [self.model.link_names[link] for link in (limb.start, limb.middle, limb.end)]
        words = [word for link in limb.bodies for word in self._words(link)]
        other = "arm" if limb.kind == "leg" else "leg"
        if any(word in words for word in _LIMB_WORDS[other]) and not any(w in words for w in _LIMB_WORDS[limb.kind]):
            self.notes.append(f"{limb.side} {limb.kind} ({names[0]} ...): its names sound like an {other}")
        middle_words = _MIDDLE_WORDS[limb.kind]
        named = [link for link in limb.bodies if any(word in self._words(link) for word in middle_words)]
        if named and limb.middle not in named:
            self.notes.append(
                f"{limb.side} {middle_words[0]}: taken to be {names[1]}, but the name of "
                f"{self.model.link_names[named[0]]} says otherwise"
            )
        if self._side(limb.bodies[-1]) not in (None, limb.side):
            self.notes.append(f"{limb.side} {limb.kind} ({names[0]} ...): its names say the other side")


def _nearest_axis(vector: FloatArray) -> FloatArray:
    axis = np.zeros(3)
    largest = int(np.abs(vector).argmax())
    axis[largest] = np.sign(vector[largest])
    return axis
