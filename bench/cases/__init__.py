# SPDX-License-Identifier: Apache-2.0
"""One file a question; each has `run(bench)`, and a docstring whose first line is shown."""
