"""``python -m llamo_ros.cli`` is the ``llamo`` command."""

import os
import sys

from llamo_ros.cli import main

status = main()
if os.environ.get("WORLD_SIZE", "1") != "1":  # one of several that train together
    from llamo_ros.training.leaving import leave

    leave(status)
sys.exit(status)
