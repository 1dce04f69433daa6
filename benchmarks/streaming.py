"""Is 30 FPS really 30 FPS? A minute of motion through three node programs, counted in a fourth process.

    python benchmarks/streaming.py --checkpoint llamo-mini --out build/streaming.json

Six prompts of ten seconds follow one another without a pause. Every pose that arrives on ~/human_pose is counted: rate,
lost and doubled frames, the error of the period between two arrivals, and the time from the first prompt to the
callback for the first pose. `holds` counts frames in which the buffer had run empty. An arrival is the moment at which
the middleware of the subscribing process has the message; `callback_...` are about the moments at which that process,
which is Python, gets round to it. The machine's load is written beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from llamo_ros.core.errors import LlamoError
from llamo_ros.motion.skeleton import FRAME_RATE
from llamo_ros.msg import MotionPrompt
from llamo_ros.nodes.programs import NodePrograms, private_domain
from llamo_ros.nodes.recorder import Recorder

TEXTS = (
    "a person walks forward",
    "a person waves the right hand",
    "a person turns to the left",
    "a person walks in a circle",
    "a person jumps",
    "a person stands still",
)
STARTUP_LIMIT = 90.0  # [s]


def measure(checkpoint: str, seconds: float, robot: str, realtime_priority: int) -> dict[str, float | int | str | bool]:
    """Play ``seconds`` of motion and count what arrives."""
    domain = private_domain()
    os.environ.update(domain)
    with tempfile.TemporaryDirectory() as folder:
        programs = NodePrograms(Path(folder), domain)
        context = Context()
        remapping = {"human_motion": "/motion_generator/human_motion"}
        try:
            programs.start("motion_generator", {"checkpoint": checkpoint}, {})
            programs.start("motion_captioner", {"checkpoint": checkpoint}, remapping)
            publishing = {"robot": robot, "realtime_priority": realtime_priority}
            programs.start("pose_publisher", publishing, remapping)
            rclpy.init(context=context, domain_id=int(domain["ROS_DOMAIN_ID"]))
            node = Node("streaming_benchmark", context=context)
            executor = SingleThreadedExecutor(context=context)
            executor.add_node(node)
            recorder = Recorder(node, with_robot=False)
            deadline = time.monotonic() + STARTUP_LIMIT
            while not recorder.is_ready:
                executor.spin_once(timeout_sec=0.05)
                programs.check()
                if time.monotonic() > deadline:
                    raise LlamoError(f"the nodes have not found each other: nobody publishes {recorder.missing}.")
            count = max(1, round(seconds / 10))
            each = seconds / count
            for number in range(count):
                prompt = MotionPrompt(text=TEXTS[number % len(TEXTS)], prompt_id=str(number), seed=number + 1)
                prompt.min_duration = prompt.max_duration = each
                prompt.mode = MotionPrompt.APPEND if number else MotionPrompt.REPLACE
                recorder.ask(prompt)
                if number == 0:
                    asked = recorder.asked
            least = seconds
            while not (recorder.is_holding and len(recorder.poses.times) > (seconds - 1.0) * FRAME_RATE):
                executor.spin_once(timeout_sec=0.05)
                programs.check()
                if recorder.poses.times and 0.5 < time.monotonic() - recorder.poses.times[0] < seconds - 3.0:
                    least = min(least, (recorder.generated_frames - recorder.played_frames) / FRAME_RATE)
                if time.monotonic() - asked > 2 * seconds + 30:
                    break
            executor.shutdown()
            node.destroy_node()
        finally:
            rclpy.try_shutdown(context=context)
            programs.end()
    return {"checkpoint": checkpoint, "realtime_priority": realtime_priority, **summary(recorder, asked, least)}


def summary(recorder: Recorder, asked: float, least: float) -> dict[str, float | int | str | bool]:
    """The numbers of one run, up to the last frame of motion."""
    messages = list(recorder.poses.messages.values())
    last = max(k for k, message in enumerate(messages) if message.prompt_id)
    messages = messages[: last + 1]
    times, callbacks = (np.array(moments[: last + 1]) for moments in (recorder.poses.received, recorder.poses.times))
    if not times.all():
        raise LlamoError("this middleware does not say when it received a message. Use rmw_fastrtps_cpp.")
    steps = np.diff([message.start_index for message in messages])
    errors, late = (np.abs(np.diff(moments) - 1 / FRAME_RATE) * 1000 for moments in (times, callbacks))
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "frames": len(messages),
        "seconds": round(times[-1] - times[0], 3),
        "rate_hz": round((len(messages) - 1) / (times[-1] - times[0]), 4),
        "lost": int((steps - 1).clip(0).sum()),
        "doubled": int((steps < 1).sum()) + len(recorder.poses.times) - len(recorder.poses.messages),
        "period_error_p50_ms": round(float(np.quantile(errors, 0.5)), 3),
        "period_error_p99_ms": round(float(np.quantile(errors, 0.99)), 3),
        "period_error_max_ms": round(float(errors.max()), 3),
        "callback_error_p50_ms": round(float(np.quantile(late, 0.5)), 3),
        "callback_error_p99_ms": round(float(np.quantile(late, 0.99)), 3),
        "callback_error_max_ms": round(float(late.max()), 3),
        "first_pose_s": round(recorder.poses.times[0] - asked, 3),
        "holds": sum(not message.prompt_id for message in messages),
        "least_buffer_s": round(least, 3),
        "underruns": int(recorder.reading("pose_publisher", "underruns")),
        "handed_in_late": int(recorder.reading("pose_publisher", "poses handed in late")),
    }
    result["passes"] = (
        result["lost"] == result["doubled"] == result["holds"] == 0
        and abs(result["rate_hz"] - FRAME_RATE) < 0.05
        and result["first_pose_s"] <= 1.0
        and result["period_error_p99_ms"] <= 5.0
    )
    return result


def main() -> int:
    """Run the benchmark; 0 if nothing was lost, doubled or late."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="llamo-mini", help="model or checkpoint folder (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="motion to play, [s] (default: %(default)s)")
    parser.add_argument("--robot", default="unitree_g1", help="robot profile (default: %(default)s)")
    parser.add_argument(
        "--realtime-priority", type=int, default=20, help="of sending poses; 0: none (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    try:
        result = measure(options.checkpoint, options.seconds, options.robot, options.realtime_priority)
    except LlamoError as error:
        print(f"The benchmark failed: {error}", file=sys.stderr)
        return 1
    for name, value in result.items():
        print(f"{name:<32}{value}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if result["passes"] else 1


if __name__ == "__main__":
    sys.exit(main())
