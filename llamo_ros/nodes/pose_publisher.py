"""pose_publisher: chunks of human motion in, a steady 30 frames per second of human and robot out. Needs no PyTorch."""

from __future__ import annotations

import sys
import threading
import uuid

from geometry_msgs.msg import PoseStamped
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from llamo_ros.core.errors import LlamoError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.msg import HumanMotion, MotionReference
from llamo_ros.nodes.conversions import (
    from_human_motion,
    from_joint_state,
    from_time,
    to_human_motion,
    to_joint_state,
    to_joint_trajectory,
    to_markers,
    to_reference,
    to_root_pose,
)
from llamo_ros.nodes.parameters import PUBLISHER, current, declare
from llamo_ros.nodes.realtime import PunctualPublisher
from llamo_ros.nodes.robot_description import received_description
from llamo_ros.nodes.runtime import (
    LATCHED_QOS,
    OK,
    STREAM_QOS,
    WARN,
    Closable,
    Diagnostics,
    Throttle,
    run_node,
)
from llamo_ros.pipelines.metronome import Metronome
from llamo_ros.pipelines.motion_to_robot import MotionToRobot
from llamo_ros.pipelines.playback import PlaybackBuffer
from llamo_ros.pipelines.player import LONGEST_DELAY, Player, PlayerFrame, frames_reached
from llamo_ros.pipelines.reference_window import ReferenceWindow, agree, reference_window
from llamo_ros.pipelines.stream import StreamChunk
from llamo_ros.pipelines.time_line import PlayMode
from llamo_ros.retarget.body_part import body_part
from llamo_ros.retarget.profile import load_robot

_SPEED = tuple(parameter for parameter in PUBLISHER if parameter.name == "speed")
_MODES = {
    PlayMode.RUN: MotionReference.RUN,
    PlayMode.BLEND: MotionReference.BLEND,
    PlayMode.HOLD: MotionReference.HOLD,
}
# [s] before its deadline a frame is taken and its human pose handed in; [s] after it the robot's part is made and sent,
# so that whoever receives the pose finds a free core. An emergency stop that comes in between goes out with this frame,
# a later one with the next. Braking begins behind what the robot has reached by then: 41 to 75 ms after the stop, plus
# what the machine adds.
_READY_BEFORE = 0.008
_ROBOT_AFTER = 0.003
_LONGEST_BRAKING = 60  # frames; after these the robot rests at the end of the last trajectory that was published


class PosePublisherNode(Closable):
    """Plays human motion at exactly 30 FPS, as a human pose and as a robot's joint trajectory.

    Playback runs in its own thread against absolute deadlines; callbacks only fill its buffer. Frames are published
    without a gap from the first motion on, also while holding.
    """

    def __init__(self) -> None:
        super().__init__("pose_publisher")
        values = declare(self, PUBLISHER)
        self._frame_id, self._dt, self._look_ahead = values["frame_id"], values["reference_dt"], values["look_ahead"]
        description = received_description(self) if values["use_robot_description"] else None
        self._robot = load_robot(values["robot"], description)
        self._player = Player(
            PlaybackBuffer(values["target_depth"], values["blend_speed"]),
            MotionToRobot(
                self._robot,
                values["start_blend"],
                values["speed"],
                body_part(values["body_part"]),
                values["fixed_base"],
            ),
            waits_for_posture=values["use_measured_state"],
        )
        self._player.robot.warm_up()
        self._has_fixed_base = values["fixed_base"]
        self._stream_id = uuid.uuid4().hex
        self._published = self._reference_count = 0
        self._last_reference: ReferenceWindow | None = None
        self._rejected = 0
        self._estop_is_pressed = False
        self._motion_log, self._posture_log, self._playback_log = Throttle(), Throttle(), Throttle()
        self._touches, self._touch_log = 0, Throttle(10.0)
        self._posture_problem = ""

        self._human_pose = PunctualPublisher(
            self.create_publisher(HumanMotion, "~/human_pose", STREAM_QOS), values["realtime_priority"]
        )
        self._joint_trajectory = self.create_publisher(JointTrajectory, "~/joint_trajectory", 10)
        self._joint_states = self.create_publisher(JointState, "~/joint_states", STREAM_QOS)
        self._root_pose = self.create_publisher(PoseStamped, "~/root_pose", STREAM_QOS)
        self._reference = self.create_publisher(MotionReference, "~/reference", STREAM_QOS)
        self._markers = self.create_publisher(MarkerArray, "~/markers", 10)
        self.create_subscription(HumanMotion, "human_motion", self._on_motion, STREAM_QOS)
        if values["use_measured_state"]:
            self.create_subscription(JointState, "joint_states", self._on_joint_state, qos_profile_sensor_data)
        # Twice: a latched stop must be seen by a node that starts later, and a stop that is not latched must match too.
        self.create_subscription(Bool, "~/estop", self._on_estop, LATCHED_QOS)
        self.create_subscription(Bool, "~/estop", self._on_estop, 10)
        self.create_service(Trigger, "~/estop", self._on_estop_service)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/pause", self._on_pause)
        self._diagnostics = Diagnostics(self, self._status)
        self._is_closing = threading.Event()
        self._is_due = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("playback", self._play), ("planning", self._plan))
        ]
        for thread in self._threads:
            thread.start()
        self.get_logger().info(
            f"plays motion on {self._robot.name} with {len(self._robot.joint_names)} joints. "
            "It is a kinematic reference, not a balance controller. "
            f"Poses are sent with {self._human_pose.scheduling}."
        )

    def close(self) -> bool:
        """End playback."""
        self._is_closing.set()
        self._is_due.set()
        for thread in self._threads:
            thread.join(1.0)
        self._human_pose.close()
        return not any(thread.is_alive() for thread in self._threads)

    # --- callbacks --------------------------------------------------------------------------------------------------

    def _on_motion(self, message: HumanMotion) -> None:
        # A message without a stream id is a stream of its own.
        is_alone = not message.stream_id
        try:
            self._player.check_size(len(message.root_positions) // 3)  # before the work of reading so many
            self._player.push(
                StreamChunk(
                    stream_id=message.stream_id or uuid.uuid4().hex,
                    start_index=message.start_index,
                    clip=from_human_motion(message),
                    is_final=message.is_final or is_alone,
                    append=message.mode == HumanMotion.APPEND,
                    text=message.text,
                    prompt_id=message.prompt_id,
                )
            )
        except LlamoError as error:
            self._rejected += 1
            self._motion_log(self.get_logger().error, f"motion is rejected: {error}")

    def _on_joint_state(self, message: JointState) -> None:
        if self._player.robot.has_started or not set(message.name) & set(self._robot.joint_names):
            return  # a gripper or a camera may publish there too
        stamp_ns = from_time(message.header.stamp)
        age = (self.get_clock().now().nanoseconds - stamp_ns) / 1e9 if stamp_ns else 0.0
        try:
            self._player.set_posture(from_joint_state(message, self._robot.joint_names), age)
            self._posture_problem = ""
        except LlamoError as error:
            self._posture_problem = str(error)
            self._posture_log(self.get_logger().error, f"the robot's posture is not usable: {error}")

    def _on_estop(self, message: Bool) -> None:
        self._estop_is_pressed = message.data
        if message.data:
            self._stop()

    def _on_estop_service(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stop()
        response.success, response.message = True, "stopped; call ~/reset to go on"
        return response

    def _stop(self) -> None:
        if not self._player.is_stopped:
            self._player.stop()
            self.get_logger().error("emergency stop: braking; it stays until ~/reset is called")

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._estop_is_pressed:
            response.message = "~/estop is still true; publish false first"
            return response
        try:
            self._player.reset()
        except LlamoError as error:
            response.message = str(error)
            return response
        response.success, response.message = True, "released; the next motion is blended in"
        self.get_logger().info("emergency stop is released")
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._player.pause(request.data)
        response.success, response.message = True, "paused" if request.data else "playing"
        return response

    # --- threads --------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Retarget what will be played soon, whenever a frame has been played."""
        while self._is_due.wait() and not self._is_closing.is_set():
            self._is_due.clear()
            try:
                self._player.set_speed(current(self, _SPEED)["speed"])
                self._player.plan_ahead()
            except LlamoError as error:
                self._playback_log(self.get_logger().error, f"holding: {error}")
            except Exception as error:  # planning must go on; until then the robot brakes and holds
                self._playback_log(self.get_logger().error, f"holding: {type(error).__name__}: {error}")

    def _play(self) -> None:
        """Play a frame at each deadline; its human pose is handed in before, so that only sending is left to do."""
        period = 1.0 / FRAME_RATE
        beats = Metronome(period, _READY_BEFORE, LONGEST_DELAY, _LONGEST_BRAKING)
        first_ns: int | None = None  # time of frame 0 of the time line
        while not self._is_closing.is_set():
            beats.get_ready()
            try:
                frame = self._player.advance(frames_reached(max(-beats.left, 0.0) + _ROBOT_AFTER))
                if frame is not None:
                    since_first = _nanoseconds(frame.human.index * period)
                    if first_ns is None:
                        # When it is due, also if it is late: all later ones are counted from here.
                        due_ns = self.get_clock().now().nanoseconds + _nanoseconds(beats.left)
                        first_ns = max(0, due_ns) - since_first  # simulated time may still stand at 0
                    self._publish(frame, first_ns + since_first, beats)
                self._is_due.set()
                problem = self._human_pose.take_error()
                if problem:
                    self._playback_log(self.get_logger().error, f"a pose was not published: {problem}")
            except Exception as error:  # playback must go on
                self._player.repeat_window()  # what was not sent now may be news of braking
                self._playback_log(
                    self.get_logger().error, f"a frame was not published: {type(error).__name__}: {error}"
                )
            beats.wait()
            stall = beats.next_beat()
            if stall is not None:
                # The controller has followed its last trajectory to the end; going on from here would be a jump.
                self._player.sit_out(stall.beats)
                if first_ns is not None:
                    first_ns += _nanoseconds(stall.shift)
                self.get_logger().warning(f"playback stood still for {stall.late:.1f} s; time goes on from now")

    def _publish(self, frame: PlayerFrame, stamp_ns: int, beats: Metronome) -> None:
        """Publish one moment: the human pose at its deadline, since its period is what is promised, and the robot.

        What came between is not overridden: after an emergency stop, or a delay in which the robot has gone elsewhere,
        its part is made anew; after a stall it is left out.
        """
        human = frame.human
        clip = MotionClip(human.rotations[None], human.root_position[None])
        human_pose = to_human_motion(
            clip,
            stamp_ns=stamp_ns,
            frame_id=self._frame_id,
            stream_id=self._stream_id,
            start_index=human.index,
            text=human.text,
            prompt_id=human.prompt_id,
        )
        self._human_pose.publish_at(human_pose, beats.deadline, LONGEST_DELAY)
        beats.wait(_ROBOT_AFTER)
        if beats.has_stalled:
            return
        frame = self._player.refreshed(frame, frames_reached(-beats.left))
        window = frame.robot
        if frame.is_new:
            self._joint_trajectory.publish(to_joint_trajectory(window, stamp_ns))
        self._player.sent(frame)
        self._joint_states.publish(to_joint_state(window, stamp_ns))
        self._root_pose.publish(to_root_pose(window, stamp_ns, self._frame_id))
        self._reference.publish(self._next_reference(frame, stamp_ns))
        self._reference_count += 1
        if self._markers.get_subscription_count():
            self._markers.publish(to_markers(clip, stamp_ns, self._frame_id, human.text))
        self._published += 1

    def _next_reference(self, frame: PlayerFrame, stamp_ns: int) -> MotionReference:
        window = reference_window(frame.robot, self._dt, self._look_ahead)
        offset = window.start_index * self._dt - frame.human.index / FRAME_RATE
        is_holding = frame.is_stopped or frame.human.mode is PlayMode.HOLD
        mode = MotionReference.STOP if frame.is_stopped else _MODES[frame.human.mode]
        if mode == MotionReference.RUN and not agree(self._last_reference or window, window):
            mode = MotionReference.BLEND
        self._last_reference = window
        return to_reference(
            window,
            self._robot.joint_names,
            stamp_ns=stamp_ns + _nanoseconds(offset),
            frame_id=self._frame_id,
            sequence_id=self._reference_count,
            dt=self._dt,
            mode=mode,
            text=frame.human.text,
            is_final=is_holding,
            has_fixed_base=self._has_fixed_base,
        )

    def _status(self) -> tuple[bytes, str, dict[str, object]]:
        counters, counts = self._player.buffer.counters, self._player.robot.shaper.counts
        root, touches = self._player.robot.root_counts, self._player.robot.touches
        values = {
            "buffer depth [frames]": self._player.depth,
            "frames waiting": self._player.buffer.waiting,
            "frames published": self._published,
            "frames received": counters.received,
            "frames doubled": counters.doubled,
            "frames lost": counters.lost,
            "messages rejected": self._rejected,
            "underruns": counters.underruns,
            "position clamps": counts.position_clamps,
            "velocity clamps": counts.velocity_clamps,
            "acceleration clamps": counts.acceleration_clamps,
            "jerk clamps": counts.jerk_clamps,
            "root speed clamps": root.speed_clamps,
            "root acceleration clamps": root.acceleration_clamps,
            "root jerk clamps": root.jerk_clamps,
            "root turn clamps": root.turn_clamps,
            "slides of standing feet": root.slides,
            "frames in self-collision": touches.frames,
            "deepest self-collision [m]": touches.deepest,
            "emergency stops": counts.stops,
            "frames without a plan": self._player.late_frames,
            "recalls": self._player.recalls,
            "poses handed in late": self._human_pose.handed_in_late,
            "largest lateness [s]": self._human_pose.take_lateness(),
        }
        if self._player.is_stopped:
            return WARN, "emergency stop; call ~/reset to go on", values
        if self._player.is_waiting_for_posture:
            problem = self._posture_problem
            return WARN, problem or "waiting for the robot's joint states", values
        before, self._touches = self._touches, touches.frames
        if touches.frames > before:
            self._touch_log(self.get_logger().warning, f"the robot touches itself: {touches}")
            return WARN, f"the robot touches itself, up to {1000 * touches.deepest:.0f} mm so far", values
        if self._player.buffer.paused:
            return OK, "paused", values
        return OK, "playing" if self._player.depth else "holding" if self._published else "waiting for motion", values


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    # Planning must not keep the interpreter for Python's usual 5 ms when the playback thread wants it.
    sys.setswitchinterval(0.0005)
    return run_node("pose_publisher", PosePublisherNode, arguments, time_slice=0.005)


if __name__ == "__main__":
    sys.exit(main())
