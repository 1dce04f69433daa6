"""Starts the node programs as processes of their own, where there is no ``ros2 launch``, and ends them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from llamo_ros.core.errors import LlamoError
from llamo_ros.nodes.runtime import PARENT

_PATIENCE = 5.0  # [s]; a node ends within 2 s


class ProgramError(LlamoError, RuntimeError):
    """A node program has ended by itself."""


def private_domain() -> dict[str, str]:
    """Environment of a ROS domain on this machine that meets no other robot: a random id, local discovery."""
    return {
        "ROS_DOMAIN_ID": str(random.SystemRandom().randrange(1, 100)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }


class NodePrograms:
    """The programs of one run and their logs.

    Args:
        log_folder: Folder for one log per program; it is made.
        environment: Variables that differ from this process, such as those of :func:`private_domain`.
    """

    def __init__(self, log_folder: Path, environment: Mapping[str, str]) -> None:
        self._log_folder = log_folder
        log_folder.mkdir(parents=True, exist_ok=True)
        # One thread each: the programs share the machine, and PyTorch in each would take all of it.
        # And none outlives this process, even if it is killed.
        self._environment = {"OMP_NUM_THREADS": "1", **os.environ, **environment, PARENT: str(os.getpid())}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, parameters: Mapping[str, object], remappings: Mapping[str, str]) -> None:
        """Start one program, such as ``pose_publisher``."""
        # What a program says is kept in one file, so ROS need not write a second one.
        command = [sys.executable, "-m", f"llamo_ros.nodes.{name}", "--ros-args", "--disable-external-lib-logs"]
        for key, value in remappings.items():
            command += ["-r", f"{key}:={value}"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={value}"]
        with open(self.log_path(name), "wb") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._environment
            )

    def log_path(self, name: str) -> Path:
        """Where a program logs."""
        return self._log_folder / f"{name}.log"

    def check(self) -> None:
        """Make sure that all are running.

        Raises:
            ProgramError: one has ended; the message holds the last line of its log.
        """
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None:
                lines = self.log_path(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise ProgramError(
                    f"{name} has ended with code {code}: {lines[-1] if lines else 'it said nothing'}\n"
                    f"Its log is {self.log_path(name)}."
                )

    def end(self) -> None:
        """End all programs, those that do not listen by force."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _PATIENCE
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
