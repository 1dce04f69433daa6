"""motion_generator: prompts in, chunks of human motion out while they are being made."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

from rclpy.publisher import Publisher
from std_msgs.msg import String
from std_srvs.srv import Trigger

from llamo_ros.core.errors import LlamoError
from llamo_ros.msg import HumanMotion, MotionPrompt
from llamo_ros.nodes.conversions import from_prompt, to_human_motion
from llamo_ros.nodes.parameters import GENERATOR, current, declare
from llamo_ros.nodes.runtime import ERROR, OK, STREAM_QOS, WARN, Background, Closable, Diagnostics, run_node
from llamo_ros.pipelines.prompt_worker import GeneratedChunk, Prompt, PromptWorker
from llamo_ros.pipelines.stream import StreamChunk

_LATENT_PERIOD = 4 / 30  # [s]; generation that takes longer falls behind playback


class Generator(Protocol):
    """What the node needs of a pipeline; :class:`llamo_ros.pipelines.text_to_motion.TextToMotion` is one."""

    def stream(self, text: str, **options: float | int) -> Iterator[GeneratedChunk]:
        """Check the prompt, then make its chunks as they are taken."""


class MotionGeneratorNode(Closable):
    """Publishes human motion for each prompt. All the work is in the pipeline and its :class:`PromptWorker`.

    The model is loaded in the background. ``~/text``, ``~/prompt`` and ``~/stop`` appear when it is ready, so that
    whoever waits for them to match waits for the model.

    Args:
        load: Makes the pipeline; None loads the checkpoint of the parameters.
    """

    def __init__(self, load: Callable[[], Generator] | None = None) -> None:
        super().__init__("motion_generator")
        values = declare(self, GENERATOR)
        self._frame_id, self._lead_time = values["frame_id"], values["lead_time"]
        self._motions: Publisher = self.create_publisher(HumanMotion, "~/human_motion", STREAM_QOS)
        self._worker: PromptWorker | None = None
        self._loading = Background(load or (lambda: _load(values)))
        self._poll = self.create_timer(0.05, self._on_poll)
        self._refused = 0
        self._diagnostics = Diagnostics(self, self._status)
        self.get_logger().info(f"loading {values['checkpoint']} ...")

    def close(self) -> bool:
        """End the worker."""
        return self._loading.is_done and (self._worker is None or self._worker.close())

    def _on_poll(self) -> None:
        """Begin to listen once the model is there."""
        if not self._loading.is_done:
            return
        self._poll.cancel()
        try:
            pipeline = self._loading.result()
        except Exception as error:  # from a wrong checkpoint to a device that is not there: nothing to wait for
            self.get_logger().fatal(f"the model cannot be loaded: {error}")
            self.exit_code = 1
            return
        self._worker = PromptWorker(pipeline.stream, self._publish, self._on_failure, self._lead_time)
        self._worker.start()
        self.create_subscription(String, "~/text", self._on_text, 10)
        self.create_subscription(MotionPrompt, "~/prompt", self._on_prompt, 10)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.get_logger().info("ready for prompts")

    def _on_text(self, message: String) -> None:
        self._submit(Prompt(message.data))

    def _on_prompt(self, message: MotionPrompt) -> None:
        self._submit(from_prompt(message))

    def _submit(self, prompt: Prompt) -> None:
        try:
            defaults = {name: value for name, value in current(self, GENERATOR).items() if name in _SAMPLING and value}
            defaults.setdefault("seed", 1 + secrets.randbelow(2**31 - 1))
            options = {**defaults, **prompt.options}
            self._worker.submit(Prompt(prompt.text, prompt.prompt_id, prompt.append, options))
        except (LlamoError, ValueError) as error:
            self._refused += 1
            self.get_logger().error(f"prompt {_shortened(prompt.text)} is not performed: {error}")
            return
        self.get_logger().info(f"prompt {_shortened(prompt.text)}, seed {options['seed']}")

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._worker.stop()
        response.success, response.message = True, "generation has ended; playback brakes and holds"
        return response

    def _publish(self, chunk: StreamChunk) -> None:
        """Called by the worker's thread; publishing is thread-safe."""
        self._motions.publish(
            to_human_motion(
                chunk.clip,
                stamp_ns=self.get_clock().now().nanoseconds,
                frame_id=self._frame_id,
                stream_id=chunk.stream_id,
                start_index=chunk.start_index,
                is_final=chunk.is_final,
                append=chunk.append,
                text=chunk.text,
                prompt_id=chunk.prompt_id,
            )
        )

    def _on_failure(self, prompt: Prompt, error: Exception) -> None:
        self.get_logger().error(f"prompt {_shortened(prompt.text)} failed half-way: {type(error).__name__}: {error}")

    def _status(self) -> tuple[bytes, str, dict[str, object]]:
        if self._worker is None:
            return (ERROR, "no model", {}) if self.exit_code else (OK, "loading the model", {})
        status = self._worker.status
        values = {
            "busy": self._worker.is_busy,
            "queued prompts": self._worker.queued,
            "motions": status.motions,
            "frames": status.frames,
            "refused prompts": self._refused,
            "failed motions": status.failures,
            "latent latency [s]": status.latency,
            "first frame latency [s]": status.first_frame_latency,
        }
        if status.latency > _LATENT_PERIOD:
            return WARN, "generation is slower than playback; fewer flow_steps make it faster", values
        return OK, "generating" if self._worker.is_busy else "waiting for a prompt", values


_SAMPLING = ("min_duration", "max_duration", "guidance_scale", "flow_steps", "seed")


def _load(values: dict[str, object]) -> Generator:
    # Here and not above: PyTorch takes seconds to import, and the program should answer to signals from the start.
    from llamo_ros.pipelines.text_to_motion import TextToMotion

    precision = None if values["precision"] == "checkpoint" else values["precision"]
    pipeline = TextToMotion.from_checkpoint(
        values["checkpoint"], values["device"], values["threads"], values["backend"], precision
    )
    pipeline.warm_up()
    return pipeline


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    # Generation runs seconds ahead of playback; where processor time is short, poses go first.
    os.nice(2)
    return run_node("motion_generator", MotionGeneratorNode, arguments, time_slice=0.02)


if __name__ == "__main__":
    sys.exit(main())
