"""The command line as a script of its own, whose folder is on the module path and the current one is not."""

from __future__ import annotations

import sys

from fcdeploy.cli import main

if __name__ == "__main__":
    sys.exit(main())
