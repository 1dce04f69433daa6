"""motion_captioner: human motion in, captions out."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from std_msgs.msg import String

from llamo_ros.core.errors import LlamoError
from llamo_ros.motion.clip import MotionClip
from llamo_ros.msg import HumanMotion, MotionCaption
from llamo_ros.nodes.conversions import from_human_motion, from_time, to_caption
from llamo_ros.nodes.parameters import CAPTIONER, declare
from llamo_ros.nodes.runtime import ERROR, OK, STREAM_QOS, Background, Closable, Diagnostics, Throttle, run_node
from llamo_ros.pipelines.caption_windows import CaptionJob, CaptionWindows


class Caption(Protocol):
    """What a pipeline answers; see :class:`llamo_ros.pipelines.motion_to_text.Caption`."""

    text: str
    confidence: float


Captioner = Callable[[MotionClip], Caption]


class MotionCaptionerNode(Closable):
    """Publishes what a person does. All the work is in the pipeline; it runs in its own thread.

    ``human_motion`` is subscribed to when the model is ready.

    Args:
        load: Makes the pipeline; None loads the checkpoint of the parameters.
    """

    def __init__(self, load: Callable[[], Captioner] | None = None) -> None:
        super().__init__("motion_captioner")
        values = declare(self, CAPTIONER)
        self._windows = CaptionWindows(values["interval"], values["silence"])
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], str] = {}  # last provisional caption of each stream and person
        self._captions = self.create_publisher(MotionCaption, "~/caption", 10)
        self._texts = self.create_publisher(String, "~/caption_text", 10)
        self._published = self._rejected = self._failed = 0
        self._latency = 0.0
        self._throttle = Throttle()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._caption_what_is_due, name="captions", daemon=True)
        self._captioner: Captioner | None = None
        self._loading = Background(load or (lambda: _load(values)))
        self._poll = self.create_timer(0.05, self._on_poll)
        self._diagnostics = Diagnostics(self, self._status)
        self.get_logger().info(f"loading {values['checkpoint']} ...")

    def close(self) -> bool:
        """End the thread."""
        self._is_closing.set()
        if self._thread.ident is not None:
            self._thread.join(1.0)
        return self._loading.is_done and not self._thread.is_alive()

    def _on_poll(self) -> None:
        """Begin to listen once the model is there."""
        if not self._loading.is_done:
            return
        self._poll.cancel()
        try:
            self._captioner = self._loading.result()
        except Exception as error:  # from a wrong checkpoint to a device that is not there: nothing to wait for
            self.get_logger().fatal(f"the model cannot be loaded: {error}")
            self.exit_code = 1
            return
        self._thread.start()
        self.create_subscription(HumanMotion, "human_motion", self._on_motion, STREAM_QOS)
        self.get_logger().info("ready for motion")

    def _on_motion(self, message: HumanMotion) -> None:
        try:
            clip = from_human_motion(message)
        except LlamoError as error:
            self._rejected += 1
            self._throttle(self.get_logger().error, f"motion is rejected: {error}")
            return
        with self._lock:
            self._windows.add(
                message.stream_id,
                message.body_id,
                message.header.frame_id,
                clip,
                message.start_index,
                from_time(message.header.stamp),
                message.is_final or not message.stream_id,
                time.monotonic(),
            )

    def _caption_what_is_due(self) -> None:
        while not self._is_closing.wait(0.02):
            with self._lock:
                jobs = self._windows.due(time.monotonic())
            for job in jobs:
                if self._is_closing.is_set():
                    return
                try:
                    self._caption(job)
                except Exception as error:  # whatever fails in one span, the next is to be captioned
                    self._failed += 1
                    self._throttle(self.get_logger().error, f"no caption of stream {job.stream_id!r}: {error}")

    def _caption(self, job: CaptionJob) -> None:
        began = time.monotonic()
        caption = self._captioner(job.clip)
        self._latency = time.monotonic() - began
        key = (job.stream_id, job.body_id)
        if not job.is_final and self._told.get(key) == caption.text:
            return
        if job.is_final:
            self._told.pop(key, None)
        else:
            self._told[key] = caption.text
        now = self.get_clock().now().nanoseconds
        self._captions.publish(to_caption(job, caption.text, caption.confidence, now))
        self._texts.publish(String(data=caption.text))
        self._published += 1

    def _status(self) -> tuple[bytes, str, dict[str, object]]:
        if self._captioner is None:
            return (ERROR, "no model", {}) if self.exit_code else (OK, "loading the model", {})
        values = {
            "captions": self._published,
            "messages rejected": self._rejected,
            "failed captions": self._failed,
            "caption latency [s]": self._latency,
        }
        return OK, "captioning", values


def _load(values: dict[str, object]) -> Captioner:
    # Here and not above: PyTorch takes seconds to import, and the program should answer to signals from the start.
    from llamo_ros.pipelines.motion_to_text import MotionToText

    return MotionToText.from_checkpoint(values["checkpoint"], values["device"], values["threads"])


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    # A caption may come late, a frame may not: where processor time is short, the other nodes go first.
    os.nice(10)
    return run_node("motion_captioner", MotionCaptionerNode, arguments, time_slice=0.02)


if __name__ == "__main__":
    sys.exit(main())
