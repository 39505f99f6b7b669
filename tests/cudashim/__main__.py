"""Run a script with kernels on the CPU: python -m tests.cudashim examples/blobs.py --quick"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from graphdrop.backend import ENVIRONMENT

from . import register

os.environ[ENVIRONMENT] = register()
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
