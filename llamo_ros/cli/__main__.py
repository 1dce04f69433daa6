"""``python -m llamo_ros.cli`` is the ``llamo`` command."""

import sys

from llamo_ros.cli import main

sys.exit(main())
