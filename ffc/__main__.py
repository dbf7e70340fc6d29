"""``python -m ffc``: the command for launchers that start modules, such as torchrun."""

from __future__ import annotations

import sys

from ffc.cli import main

sys.exit(main())
