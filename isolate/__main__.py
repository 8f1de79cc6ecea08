# SPDX-License-Identifier: Apache-2.0
"""`python -m isolate` is the command `isolate`."""

from __future__ import annotations

import sys

from isolate.cli import main

if __name__ == "__main__":
    sys.exit(main())
