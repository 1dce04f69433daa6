"""A tiny checkpoint with gentle motion, a ROS domain of its own, and node programs as separate processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
import torch
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from llamo_ros.model.checkpoint import save_checkpoint
from llamo_ros.model.config import GenerationConfig, preset
from llamo_ros.model.llamo import Llamo
from llamo_ros.model.text_tokenizer import TextTokenizer
from llamo_ros.motion.clip import MotionClip
from llamo_ros.motion.representation272 import encode_clip

TIMEOUT = 120.0  # [s]; only to end what hangs: importing PyTorch three times can take 40 s on a busy machine


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights whose motion is a person who stands and trembles, for 3 s."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    config = replace(
        preset("tiny"),
        generation=GenerationConfig(flow_steps=4, guidance_scale=1.0, exit_threshold=2.0, max_duration=3.0),
    )
    torch.manual_seed(0)
    model = Llamo(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    standing = MotionClip(np.tile(np.eye(3), (1, 22, 1, 1)), np.array([[0.0, 0.93, 0.0]]))
    model.vae.feature_mean.copy_(torch.from_numpy(encode_clip(standing)[0]))
    model.vae.feature_std.fill_(0.005)
    texts = ["a person walks forward", "a person waves the right hand", "someone jumps", "turn to the left"]
    save_checkpoint(model, TextTokenizer.train(texts * 5, 300), folder, {"licence": "test"}, torch.float32)
    return folder


class Graph:
    """A ROS domain with a node of the test in it, and the programs that it starts."""

    def __init__(self, log_folder: Path) -> None:
        self.domain = random.SystemRandom().randrange(1, 100)  # not the seeded generator: runs must not meet
        self.log_folder = log_folder
        self.context = Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = Node("tester", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.programs: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, **parameters: object) -> subprocess.Popen[bytes]:
        """Start a node program; motion goes from the generator to the others."""
        arguments = [sys.executable, "-m", f"llamo_ros.nodes.{program}", "--ros-args"]
        arguments += ["-r", "human_motion:=/motion_generator/human_motion"]
        for name, value in parameters.items():
            arguments += ["-p", f"{name}:={value}"]
        environment = {**os.environ, "ROS_DOMAIN_ID": str(self.domain), "OMP_NUM_THREADS": "1"}
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        environment["ROS_LOG_DIR"] = str(self.log_folder)
        with open(self.log_folder / f"{program}.log", "wb") as log:
            process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self.programs.append(process)
        return process

    def log(self, program: str) -> str:
        """What a program has logged."""
        return (self.log_folder / f"{program}.log").read_text(encoding="utf-8", errors="replace")

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
        """Spin until a condition holds; fails with the programs' logs when it does not in time."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text(errors="replace") for path in self.log_folder.glob("*.log"))
                pytest.fail(f"no {what} within {timeout} s. Logs:\n{logs}")
            self._executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds: float) -> None:
        """Spin for some time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.02)

    def call(self, service_type: type, name: str, request: object) -> object:
        """Call a service and return its answer."""
        client = self.node.create_client(service_type, name)
        self.wait(client.service_is_ready, f"service {name}")
        future = client.call_async(request)
        self.wait(future.done, f"answer of {name}")
        return future.result()

    def close(self) -> None:
        """End everything."""
        for program in self.programs:
            program.terminate()
        for program in self.programs:
            try:
                program.wait(5)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    """An empty ROS domain on this machine."""
    yield from _graph(tmp_path)


@pytest.fixture(scope="module")
def shared_graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """A ROS domain on this machine for all tests of a file."""
    yield from _graph(tmp_path_factory.mktemp("logs"))


def _graph(log_folder: Path) -> Iterator[Graph]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        graph = Graph(log_folder)
        try:
            yield graph
        finally:
            graph.close()
