# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.museum NAME`: record this machine."""

import sys

from attrs import evolve

from isolate.host.probe import probe
from tests.museum import HERE, PYTHON

text = evolve(probe(), python=PYTHON).to_json() + "\n"
(HERE / f"{sys.argv[1]}.json").write_text(text, encoding="utf-8")
