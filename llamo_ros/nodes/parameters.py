"""Every parameter of the nodes, declared once: default, type, unit, bounds, what it does.

Parameters with ``read_only`` are read at start-up; the others may be set while the node runs. Defaults for a whole
system stand in ``config/nodes.yaml``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from llamo_ros.core.errors import ParameterError

Value = bool | int | float | str


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: Its name.
        default: Its default, which also tells the type.
        description: What it does, for a user who has to decide on a value.
        unit: Unit, or empty.
        bounds: Smallest and largest value, for numbers.
        read_only: Whether it is fixed at start-up.
    """

    name: str
    default: Value
    description: str
    unit: str = ""
    bounds: tuple[float, float] | None = None
    read_only: bool = True

    def descriptor(self) -> ParameterDescriptor:
        """What ``ros2 param describe`` shows."""
        unit = f" [{self.unit}]" if self.unit else ""
        descriptor = ParameterDescriptor(description=self.description + unit, read_only=self.read_only)
        if isinstance(self.default, float):
            descriptor.dynamic_typing = True  # `lead_time:=2` is as good as `2.0`; checked() looks at the rest
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.bounds[0], to_value=self.bounds[1])]
        elif isinstance(self.default, int) and not isinstance(self.default, bool):
            low, high = map(int, self.bounds)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        return descriptor

    def checked(self, value: object) -> Value:
        """The value in the parameter's type.

        Raises:
            ParameterError: it has another type, or is out of bounds.
        """
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(self.default, float):
            fits = is_number and math.isfinite(value) and self.bounds[0] <= value <= self.bounds[1]
            if not fits:
                raise ParameterError(
                    f"parameter {self.name!r} is {value!r}, expected a number from {self.bounds[0]:g} to "
                    f"{self.bounds[1]:g} {self.unit}".rstrip()
                    + "."
                )
            return float(value)
        if not isinstance(value, type(self.default)):
            raise ParameterError(f"parameter {self.name!r} is {value!r}, expected {type(self.default).__name__}.")
        return value


_FRAME_ID = Parameter("frame_id", "odom", "Fixed coordinate frame, z up, in which all poses are given.")

GENERATOR = (
    Parameter("checkpoint", "llamo-mini", "Name of a shipped model, or a checkpoint folder."),
    Parameter("device", "cpu", "PyTorch device of the model, such as cpu or cuda:0."),
    Parameter(
        "threads",
        1,
        "CPU threads that share the flow head, and PyTorch's where it runs whole layers; at most the cores there are. "
        "One is enough for llamo-mini; more gain only where cores are free.",
        bounds=(1, 256),
    ),
    Parameter("backend", "auto", "Backend of the kernels: auto, cpu, triton or reference."),
    Parameter(
        "precision",
        "checkpoint",
        "In which kernels keep weights: float32, bfloat16, int8, in Triton float8, or checkpoint for what it says.",
    ),
    _FRAME_ID,
    Parameter(
        "lead_time",
        2.0,
        "How far generation runs ahead of playback at most. More rides out longer hiccups; less forgets sooner.",
        unit="s",
        bounds=(0.2, 60.0),
    ),
    Parameter(
        "min_duration",
        0.0,
        "Shortest motion of a prompt that does not say; 0 takes the model's.",
        unit="s",
        bounds=(0.0, 600.0),
        read_only=False,
    ),
    Parameter(
        "max_duration",
        0.0,
        "Longest motion of a prompt that does not say; 0 takes the model's.",
        unit="s",
        bounds=(0.0, 600.0),
        read_only=False,
    ),
    Parameter(
        "guidance_scale",
        0.0,
        "How strictly to follow the text, 1 is plain; 0 takes the model's.",
        bounds=(0.0, 20.0),
        read_only=False,
    ),
    Parameter(
        "flow_steps",
        0,
        "Euler steps of the flow head per latent: more is smoother and slower; 0 takes the model's.",
        bounds=(0, 1000),
        read_only=False,
    ),
    Parameter(
        "seed",
        0,
        "Seed of prompts that give none; 0 draws a new one for each prompt.",
        bounds=(0, 2**31 - 1),
        read_only=False,
    ),
)

PUBLISHER = (
    Parameter(
        "robot",
        "unitree_g1",
        "Robot profile: a name, a part of one, or the path of one (.yaml); with a URDF of your own, profile@urdf.",
    ),
    Parameter(
        "use_robot_description",
        False,
        "Wait for the robot's URDF on `robot_description` and use it in place of the profile's own.",
    ),
    _FRAME_ID,
    Parameter(
        "target_depth",
        8,
        "Frames to collect before playback begins or resumes. More rides out a slower source; each adds 33 ms.",
        unit="frames",
        bounds=(1, 300),
    ),
    Parameter(
        "blend_speed",
        4.0,
        "Joint speed that going over from one motion into the next may add.",
        unit="rad/s",
        bounds=(0.5, 20.0),
    ),
    Parameter(
        "start_blend",
        1.0,
        "How long the robot is blended into motion from its start posture and after holding.",
        unit="s",
        bounds=(0.1, 10.0),
    ),
    Parameter(
        "speed",
        1.0,
        "Share of the robot profile's velocity limits that may be used, at any time; 0 brakes and holds.",
        bounds=(0.0, 1.0),
        read_only=False,
    ),
    Parameter(
        "body_part",
        "whole",
        "What follows the human: whole, upper (stands on both feet) or legs. Other joints hold the standing posture.",
    ),
    Parameter("fixed_base", False, "The robot's root link is bolted down: it does not move, and has no pose."),
    Parameter(
        "use_measured_state",
        False,
        "Wait for the robot's joint states on `joint_states` and start there; false starts at its standing posture.",
    ),
    Parameter(
        "realtime_priority",
        20,
        "SCHED_FIFO priority of the thread that sends ~/human_pose, which sleeps nearly always; 0 asks for none. "
        "Without the permission it gets short time slices.",
        bounds=(0, 99),
    ),
    Parameter("reference_dt", 0.02, "Time between frames of ~/reference.", unit="s", bounds=(0.001, 0.1)),
    Parameter("look_ahead", 0.2, "Time that ~/reference looks ahead.", unit="s", bounds=(0.2, 1.0)),
)

CAPTIONER = (
    Parameter("checkpoint", "llamo-mini", "Name of a shipped model, or a checkpoint folder."),
    Parameter("device", "cpu", "PyTorch device of the model, such as cpu or cuda:0."),
    Parameter(
        "threads",
        1,
        "CPU threads where PyTorch runs whole layers, at most the cores there are; compiled kernels caption on one.",
        bounds=(1, 256),
    ),
    Parameter(
        "interval",
        2.0,
        "Time between provisional captions while motion goes on; 0 captions only what has ended.",
        unit="s",
        bounds=(0.0, 60.0),
    ),
    Parameter("silence", 1.0, "A stream that stays away this long has ended.", unit="s", bounds=(0.1, 60.0)),
)


def declare(node: Node, parameters: tuple[Parameter, ...]) -> dict[str, Value]:
    """Declare parameters on a node.

    Returns:
        Their values, by name.

    Raises:
        ParameterError: a value from the command line or a file has another type, or is out of bounds.
    """
    values = {}
    for parameter in parameters:
        try:
            value = node.declare_parameter(parameter.name, parameter.default, parameter.descriptor()).value
        except Exception as error:  # rclpy has one class for each way of being wrong, without a common base
            raise ParameterError(f"parameter {parameter.name!r} is refused: {error}") from error
        values[parameter.name] = parameter.checked(value)
    return values


def current(node: Node, parameters: tuple[Parameter, ...]) -> dict[str, Value]:
    """Values of declared parameters now; a value of the wrong type raises ParameterError."""
    return {p.name: p.checked(node.get_parameter(p.name).value) for p in parameters}
