"""LLaMo for ROS 2: language to streaming humanoid motion, and observed motion to captions.

Keep this file light: every import of `llamo_ros.msg` or `llamo_ros.action`, which rosidl generates, runs it.
"""

from pkgutil import extend_path

__version__ = "0.1.0"

# A source checkout on sys.path still finds the installed interfaces and kernels.
__path__ = extend_path(__path__, __name__)
