"""Messages to arrays and back. Pure functions, the only place where the core's axes meet those of the wire.

The core is y up and the body faces +z; on the wire z is up and the body faces +x (REP-103). In the rest pose, the
T-pose, the axes of EVERY joint are those of the world: on the wire x forward, y left, z up, however the limb points.
A joint's rotation is relative to its parent, so that a body standing in the T-pose is all identities, and bending the
left elbow forward is a rotation about its z axis, which is vertical in the T-pose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Twist
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import ColorRGBA, Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from visualization_msgs.msg import Marker, MarkerArray

from llamo_ros.core.errors import MotionDataError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.frames import from_ros_world, to_ros_world
from llamo_ros.motion.rotations import matrix_to_quaternion_xyzw, quaternion_xyzw_to_matrix
from llamo_ros.motion.skeleton import JOINT_COUNT, PARENTS
from llamo_ros.msg import HumanMotion, MotionCaption, MotionPrompt, MotionReference
from llamo_ros.pipelines.caption_windows import CaptionJob
from llamo_ros.pipelines.motion_to_robot import RobotWindow
from llamo_ros.pipelines.prompt_worker import Prompt
from llamo_ros.pipelines.reference_window import ReferenceWindow

FloatArray = NDArray[np.float64]

MAX_FRAMES = 18_000  # ten minutes in one message; more is a mistake
MAX_DISTANCE = 10_000.0  # [m] from the origin; beyond it float32 is too coarse for motion
_NORM_TOLERANCE = 0.05
_SECOND = 1_000_000_000


def to_time(nanoseconds: int) -> Time:
    """Time message of nanoseconds since the epoch."""
    return Time(sec=nanoseconds // _SECOND, nanosec=nanoseconds % _SECOND)


def from_time(time: Time) -> int:
    """Nanoseconds since the epoch of a time message."""
    return time.sec * _SECOND + time.nanosec


def to_human_motion(
    clip: MotionClip,
    *,
    stamp_ns: int,
    frame_id: str,
    stream_id: str,
    start_index: int,
    is_final: bool = False,
    append: bool = False,
    text: str = "",
    prompt_id: str = "",
) -> HumanMotion:
    """Message of consecutive frames.

    Args:
        clip: The frames, T >= 0.
        stamp_ns: Time of the first frame, [ns].
        frame_id: Fixed coordinate frame, z up.
        stream_id: Stream they belong to.
        start_index: Index in it of the first frame.
        is_final: Whether the stream ends here.
        append: Whether the stream waits for the one before to be played.
        text: Prompt, or empty.
        prompt_id: Its id, or empty.
    """
    positions, rotations = to_ros_world(clip.root_positions, clip.rotations)
    return HumanMotion(
        header=Header(stamp=to_time(stamp_ns), frame_id=frame_id),
        stream_id=stream_id,
        start_index=start_index,
        frame_rate=float(clip.frame_rate),
        mode=HumanMotion.APPEND if append else HumanMotion.REPLACE,
        is_final=is_final,
        text=text,
        prompt_id=prompt_id,
        root_positions=positions.astype(np.float32).ravel(),
        joint_rotations=matrix_to_quaternion_xyzw(rotations).astype(np.float32).ravel(),
    )


def from_human_motion(message: HumanMotion) -> MotionClip:
    """Frames of a message, checked.

    Raises:
        MotionDataError: the arrays do not fit each other, hold NaN or infinity, quaternions are not of unit norm, the
            frame rate is not positive, or the message has no frame and is not the last of its stream.
    """
    roots = np.asarray(message.root_positions, dtype=np.float64)
    quaternions = np.asarray(message.joint_rotations, dtype=np.float64)
    count = len(roots) // 3
    where = f"frames from {message.start_index} of stream {message.stream_id!r}"
    if len(roots) != 3 * count or len(quaternions) != 4 * JOINT_COUNT * count or count > MAX_FRAMES:
        raise MotionDataError(
            f"{where}: {len(roots)} numbers in root_positions and {len(quaternions)} in joint_rotations, expected 3 T "
            f"and 88 T for T frames, T <= {MAX_FRAMES}."
        )
    if count == 0 and not message.is_final:
        raise MotionDataError(f"{where}: no frames; only the last message of a stream may be empty.")
    if not (np.isfinite(message.frame_rate) and message.frame_rate > 0):
        raise MotionDataError(f"{where}: frame_rate is {message.frame_rate:g}, expected a positive number of [Hz].")
    if not (np.isfinite(roots).all() and np.isfinite(quaternions).all()):
        raise MotionDataError(f"{where}: NaN or infinite values; the message is dropped.")
    quaternions = quaternions.reshape(count, JOINT_COUNT, 4)
    norms = np.linalg.norm(quaternions, axis=-1)
    if (np.abs(norms - 1.0) > _NORM_TOLERANCE).any():
        worst = norms.flat[np.abs(norms - 1.0).argmax()]
        raise MotionDataError(f"{where}: a quaternion has norm {worst:.3f}, expected 1. The order is x, y, z, w.")
    if np.abs(roots).max(initial=0.0) > MAX_DISTANCE:
        raise MotionDataError(f"{where}: the person is {np.abs(roots).max():.0f} m from the origin, more than 10 km.")
    positions, rotations = from_ros_world(roots.reshape(count, 3), quaternion_xyzw_to_matrix(quaternions))
    return MotionClip(rotations, positions, float(message.frame_rate), message.text)


def from_prompt(message: MotionPrompt) -> Prompt:
    """Prompt of a message; options at 0 or below are left out, so that they take defaults."""
    options = {
        "min_duration": message.min_duration,
        "max_duration": message.max_duration,
        "seed": message.seed,
        "guidance_scale": message.guidance_scale,
        "flow_steps": message.flow_steps,
    }
    # `not <= 0` keeps NaN, which the pipeline refuses with its reason.
    options = {name: value for name, value in options.items() if not value <= 0}
    return Prompt(message.text, message.prompt_id, message.mode == MotionPrompt.APPEND, options)


def from_joint_state(message: JointState, joint_names: Sequence[str]) -> FloatArray:
    """Positions (J,), [rad], of the named joints; other joints in the message are ignored.

    Raises:
        MotionDataError: a joint is missing, or a position is NaN or infinite.
    """
    found = dict(zip(message.name, message.position, strict=False))
    missing = [name for name in joint_names if name not in found]
    if missing:
        raise MotionDataError(
            f"the joint state lacks {len(missing)} of {len(joint_names)} joints, first {missing[0]!r}."
        )
    positions = np.array([found[name] for name in joint_names], dtype=np.float64)
    if not np.isfinite(positions).all():
        raise MotionDataError(
            f"the joint state of {joint_names[int(np.isfinite(positions).argmin())]!r} is not finite."
        )
    return positions


def to_joint_trajectory(window: RobotWindow, stamp_ns: int) -> JointTrajectory:
    """Trajectory of all joints from the window's first frame, at ``stamp_ns``, [ns], to rest."""
    trajectory = window.trajectory
    points = [
        JointTrajectoryPoint(
            positions=positions,
            velocities=velocities,
            time_from_start=Duration(sec=int(ns // _SECOND), nanosec=int(ns % _SECOND)),
        )
        for positions, velocities, ns in zip(
            trajectory.positions.tolist(),
            trajectory.velocities.tolist(),
            np.round(trajectory.times * 1e9).astype(np.int64),
            strict=True,
        )
    ]
    return JointTrajectory(
        header=Header(stamp=to_time(stamp_ns)), joint_names=list(trajectory.joint_names), points=points
    )


def to_joint_state(window: RobotWindow, stamp_ns: int) -> JointState:
    """Commanded positions and velocities in the window's first frame."""
    return JointState(
        header=Header(stamp=to_time(stamp_ns)),
        name=list(window.trajectory.joint_names),
        position=window.trajectory.positions[0],
        velocity=window.trajectory.velocities[0],
    )


def to_root_pose(window: RobotWindow, stamp_ns: int, frame_id: str) -> PoseStamped:
    """Pose of the robot's root link in the window's first frame."""
    pose = _pose(window.root_positions[0], window.root_quaternions[0])
    return PoseStamped(header=Header(stamp=to_time(stamp_ns), frame_id=frame_id), pose=pose)


def to_reference(
    window: ReferenceWindow,
    joint_names: Sequence[str],
    *,
    stamp_ns: int,
    frame_id: str,
    sequence_id: int,
    dt: float,
    mode: int,
    text: str,
    is_final: bool,
    has_fixed_base: bool = False,
) -> MotionReference:
    """Reference for a whole-body tracker.

    Args:
        window: The frames.
        joint_names: The J joints.
        stamp_ns: Time of the first frame, [ns].
        frame_id: Fixed coordinate frame, z up.
        sequence_id: Count of messages.
        dt: Time between frames, [s].
        mode: A constant of ``MotionReference``.
        text: Prompt in the first frame, or empty.
        is_final: Whether the window ends at rest and nothing follows.
        has_fixed_base: Whether the root is bolted down, so that its pose says nothing.
    """
    poses = zip(window.root_positions, window.root_quaternions, strict=True)
    twists = zip(window.linear_velocities, window.angular_velocities, strict=True)
    has_two_feet = window.contacts.shape[1] == MotionReference.CONTACT_COUNT
    return MotionReference(
        header=Header(stamp=to_time(stamp_ns), frame_id=frame_id),
        sequence_id=sequence_id,
        start_index=window.start_index,
        dt=dt,
        joint_names=list(joint_names),
        positions=window.positions.astype(np.float32).ravel(),
        velocities=window.velocities.astype(np.float32).ravel(),
        accelerations=window.accelerations.astype(np.float32).ravel(),
        root_poses=[] if has_fixed_base else [_pose(p, q) for p, q in poses],
        root_twists=[] if has_fixed_base else [_twist(v, w) for v, w in twists],
        contacts=window.contacts.ravel() if has_two_feet else [],
        mode=mode,
        text=text,
        is_final=is_final,
    )


def to_caption(job: CaptionJob, text: str, confidence: float, stamp_ns: int) -> MotionCaption:
    """Caption of a span of motion, made at ``stamp_ns``, [ns]."""
    return MotionCaption(
        header=Header(stamp=to_time(stamp_ns), frame_id=job.frame_id),
        body_id=job.body_id,
        stream_id=job.stream_id,
        text=text,
        confidence=confidence,
        start_time=to_time(job.start_ns),
        end_time=to_time(job.end_ns),
        start_index=job.start_index,
        end_index=job.end_index,
        is_final=job.is_final,
    )


def to_markers(clip: MotionClip, stamp_ns: int, frame_id: str, text: str) -> MarkerArray:
    """The skeleton of a clip's first frame as lines, and its prompt above the head."""
    positions, _ = to_ros_world(clip.sliced(0, 1).joint_positions()[0])
    header = Header(stamp=to_time(stamp_ns), frame_id=frame_id)
    points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in positions]
    lines = Marker(header=header, ns="skeleton", id=0, type=Marker.LINE_LIST, action=Marker.ADD)
    lines.scale.x = 0.03
    lines.color = ColorRGBA(r=0.2, g=0.6, b=1.0, a=1.0)
    lines.pose.orientation.w = 1.0
    lines.points = [points[end] for joint in range(1, JOINT_COUNT) for end in (PARENTS[joint], joint)]
    label = Marker(header=header, ns="prompt", id=0, type=Marker.TEXT_VIEW_FACING)
    label.action = Marker.ADD if text else Marker.DELETE
    label.scale.z = 0.12
    label.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    label.pose.position = Point(x=points[15].x, y=points[15].y, z=points[15].z + 0.35)
    label.pose.orientation.w = 1.0
    label.text = text
    return MarkerArray(markers=[lines, label])


def _pose(position: FloatArray, quaternion: FloatArray) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = map(float, position)
    orientation = pose.orientation
    orientation.x, orientation.y, orientation.z, orientation.w = map(float, quaternion)
    return pose


def _twist(linear: FloatArray, angular: FloatArray) -> Twist:
    twist = Twist()
    twist.linear.x, twist.linear.y, twist.linear.z = map(float, linear)
    twist.angular.x, twist.angular.y, twist.angular.z = map(float, angular)
    return twist
