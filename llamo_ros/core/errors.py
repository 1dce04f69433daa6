"""The errors this package raises on purpose.

Each message says what was wrong, what was expected and what to do. Catch :class:`LlamoError` to catch them all.
"""

from __future__ import annotations


class LlamoError(Exception):
    """Base of every error this package raises on purpose."""


class ParameterError(LlamoError, ValueError):
    """A value is outside what the function or the configuration allows."""


class ShapeError(LlamoError, ValueError):
    """An array has the wrong shape."""

    def __init__(self, name: str, got: tuple[int, ...], expected: str, advice: str = "") -> None:
        super().__init__(f"{name} has shape {tuple(got)}, expected {expected}. {advice}".rstrip())


class MotionFileError(LlamoError, ValueError):
    """A motion file cannot be read: it is cut short, malformed, or of an unknown rig."""


class MotionDataError(LlamoError, ValueError):
    """Motion arrays are not usable: NaN, infinite, or not rotations."""


class PromptError(LlamoError, ValueError):
    """A prompt cannot be performed: it is empty, too long, or not text."""


class CheckpointError(LlamoError, RuntimeError):
    """A checkpoint folder is incomplete, damaged, or of another version."""


class DatasetError(LlamoError, RuntimeError):
    """Training data is missing or does not have the documented layout."""


class TrainingError(LlamoError, RuntimeError):
    """Training went wrong: the loss stays NaN, or a frozen tensor has changed."""


class RobotError(LlamoError, ValueError):
    """A robot profile or description is unknown or does not fit."""


class BackendError(LlamoError, RuntimeError):
    """A kernel backend was asked for by name and cannot run here."""
