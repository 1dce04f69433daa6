"""The demo: three node programs and this one, a sentence in, and everything that came out of it in files."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from llamo_ros.core.errors import LlamoError, ParameterError
from llamo_ros.model.text_tokenizer import checked_prompt
from llamo_ros.motion.files import save_motion
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.msg import MotionPrompt
from llamo_ros.nodes.programs import NodePrograms, ProgramError, private_domain
from llamo_ros.nodes.recorder import Recorder
from llamo_ros.retarget.export import export_motion
from llamo_ros.retarget.profile import Robot, load_robot
from llamo_ros.viewer.render import render_strip, render_video

_STARTUP_LIMIT = 60.0  # [s]; loading two models on a busy machine
_SILENCE_LIMIT = 15.0  # [s] without any new frame
_CAPTION_LIMIT = 15.0  # [s] after the end of the motion
_LONGEST = 60.0  # [s]; what is drawn as a video


def run_demo(
    text: str,
    robot: str = "unitree_g1",
    seconds: float = 6.0,
    out_dir: Path = Path("out/demo"),
    checkpoint: str = "llamo-mini",
) -> int:
    """Turn a sentence into motion of a robot over ROS topics, and write what was received.

    Starts the generator, the publisher and the captioner as processes in a ROS domain of their own on this machine.

    Args:
        text: What to do.
        robot: Name of a robot profile, or the path of one.
        seconds: Longest motion, [s]; the model may end it earlier.
        out_dir: Folder for motion.bvh, motion.npz, joint_trajectory.csv, strip.png, video.gif and logs/.
        checkpoint: Name of a shipped model, or a checkpoint folder.

    Returns:
        0 if everything was written, 130 after Ctrl-C, otherwise 1; then a sentence on stderr says what to do.
    """
    try:
        robot_profile = load_robot(robot)
        checked_prompt(text)
        if not 0.5 <= seconds <= _LONGEST:
            raise ParameterError(f"seconds is {seconds:g}, expected 0.5 to {_LONGEST:g}.")
        out_dir.mkdir(parents=True, exist_ok=True)
        with _Interruption() as interruption:
            recorder = _record(text, robot, seconds, out_dir, checkpoint, interruption)
            interruption.be_immediate()
            _write(recorder, text, robot_profile, out_dir)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except LlamoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nThe demo failed: {error}. Choose another folder with --out, or free some space.", file=sys.stderr)
        return 1
    return 0


class _Interruption:
    """SIGINT and SIGTERM as KeyboardInterrupt, but only where it can do no harm.

    While programs are started and ended a signal is only remembered, and the loops ask :meth:`check`: raised inside
    ``Popen`` it would leave a program behind, and raised inside a weak reference's callback, as during imports, Python
    would print and forget it.
    """

    def __enter__(self) -> _Interruption:
        self._came = False
        self._is_immediate = False
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, *_: object) -> None:
        self._came = True
        if self._is_immediate:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._came:
            raise KeyboardInterrupt

    def be_immediate(self) -> None:
        """From now on raise as soon as a signal comes; nothing is left that has to be ended."""
        self._is_immediate = True
        self.check()


def _record(
    text: str, robot: str, seconds: float, out_dir: Path, checkpoint: str, interruption: _Interruption
) -> Recorder:
    """Run the programs until the motion has been played and captioned."""
    domain = private_domain()
    programs = NodePrograms((out_dir / "logs").resolve(), domain)
    folder = Path(checkpoint)
    model = {"checkpoint": str(folder.resolve()) if folder.is_dir() else checkpoint}
    remapping = {"human_motion": "/motion_generator/human_motion"}
    print(f"Starting three nodes in ROS domain {domain['ROS_DOMAIN_ID']} of this machine ...", flush=True)
    began = time.monotonic()
    context = Context()
    # Discovery reads the range from the environment of this process when the context is made.
    before = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE")
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = domain["ROS_AUTOMATIC_DISCOVERY_RANGE"]
    try:
        programs.start("motion_generator", model, {})
        programs.start("motion_captioner", model, remapping)
        programs.start("pose_publisher", {"robot": robot}, remapping)
        rclpy.init(context=context, domain_id=int(domain["ROS_DOMAIN_ID"]))
        node = Node("demo", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        recorder = Recorder(node)

        def spin_until(is_done: Callable[[], bool], is_late: Callable[[], bool], show: Callable[[], str]) -> bool:
            line = _LiveLine()
            while not is_done():
                executor.spin_once(timeout_sec=0.05)
                interruption.check()
                programs.check()
                line.show(show())
                if is_late():
                    line.end()
                    return False
            line.show(show(), is_last=True)
            line.end()
            return True

        deadline = time.monotonic() + _STARTUP_LIMIT
        ready = spin_until(lambda: recorder.is_ready, lambda: time.monotonic() > deadline, lambda: "")
        if not ready:
            raise ProgramError(
                f"the nodes have not found each other within {_STARTUP_LIMIT:.0f} s; nobody publishes "
                f"{', '.join(recorder.missing) or 'what is needed'}. Look into {out_dir / 'logs'}; "
                "if a firewall is on, allow UDP on the loopback interface."
            )
        print(f"Ready after {time.monotonic() - began:.1f} s. Prompt: {text!r}", flush=True)

        recorder.ask(MotionPrompt(text=text, prompt_id="demo", max_duration=seconds, min_duration=min(1.0, seconds)))
        played = spin_until(
            lambda: recorder.is_played, lambda: _is_silent(recorder), lambda: _progress(recorder, time.monotonic())
        )
        if not played:
            raise ProgramError(f"no frame came for {_SILENCE_LIMIT:.0f} s. Look into {out_dir / 'logs'}.")
        deadline = time.monotonic() + _CAPTION_LIMIT
        spin_until(lambda: recorder.final_caption is not None, lambda: time.monotonic() > deadline, lambda: "")
        executor.shutdown()
        node.destroy_node()
        return recorder
    finally:
        if before is None:
            del os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"]
        else:
            os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = before
        rclpy.try_shutdown(context=context)
        programs.end()


def _write(recorder: Recorder, text: str, robot: Robot, out_dir: Path) -> None:
    """Say what happened and write the files."""
    clip, motion = recorder.human_clip(text), recorder.robot_motion(robot)
    print(f"First pose {recorder.first_pose_latency:.2f} s after the prompt; {len(clip)} frames played at 30 FPS.")
    caption = recorder.final_caption
    if caption is None:
        raise ProgramError(f"the motion was not captioned. Look into {out_dir / 'logs' / 'motion_captioner.log'}.")
    print(f"The captioner saw: {caption.text!r} (confidence {caption.confidence:.2f})")
    print("Drawing ...", flush=True)
    save_motion(clip, out_dir / "motion.bvh")
    save_motion(clip, out_dir / "motion.npz")
    export_motion(robot, motion, out_dir / "joint_trajectory.csv")
    render_strip(clip, out_dir / "strip.png", text, motion, robot)
    render_video(clip, out_dir / "video.gif", text, motion, robot)
    print(f"Written to {out_dir}/:")
    for name, content in (
        ("strip.png", "the person and the robot at eight times"),
        ("video.gif", "the same as a video"),
        ("motion.bvh", "the person, for animation tools"),
        ("motion.npz", "the person, for llamo_ros"),
        ("joint_trajectory.csv", f"{len(motion.joint_names)} joints of {robot.name}, [rad], 30 FPS"),
        ("logs/", "what the nodes said"),
    ):
        print(f"  {name:<21}{content}")


def _is_silent(recorder: Recorder) -> bool:
    last = max([recorder.asked, *recorder.poses.times[-1:]])
    since_motion = time.monotonic() - recorder.asked
    too_long = since_motion > _LONGEST + 2 * _SILENCE_LIMIT  # poses of holding come for ever
    return time.monotonic() - last > _SILENCE_LIMIT or too_long


def _progress(recorder: Recorder, now: float) -> str:
    times = recorder.poses.times
    recent = [moment for moment in times[-60:] if moment > now - 1.0]
    rate = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 5 else 0.0
    played = recorder.played_frames
    latency = recorder.reading("motion_generator", "latent latency [s]")
    latency_ms = f"{1000 * float(latency):.0f} ms" if latency != "-" else "-"
    ahead = max(0, recorder.generated_frames - played)
    return (
        f"generated {recorder.generated_frames:4d} frames ({latency_ms} per latent) | "
        f"played {played:4d} ({played / FRAME_RATE:4.1f} s) at {rate:5.2f} FPS | buffer {ahead:3d} frames"
    )


class _LiveLine:
    """One line that is written over on a terminal, or once a second elsewhere."""

    def __init__(self) -> None:
        self._last, self._is_shown = 0.0, False

    def show(self, text: str, is_last: bool = False) -> None:
        """Show a text; an empty one shows nothing."""
        now = time.monotonic()
        period = 0.1 if sys.stdout.isatty() else 1.0
        if not text or (now - self._last < period and not is_last):
            return
        self._last, self._is_shown = now, True
        end = "" if sys.stdout.isatty() else "\n"
        print(("\r" if not end else "") + text, end=end, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._is_shown and sys.stdout.isatty():
            print(flush=True)
