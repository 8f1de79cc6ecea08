# SPDX-License-Identifier: Apache-2.0
"""Only what setup.cfg can't say: the cffi extension, and the static isolate-init beside it."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent


class BuildExt(build_ext):
    """Build isolate-init where the extension goes: the tree, or the wheel."""

    def run(self):
        super().run()
        build = runpy.run_path(str(HERE / "_native" / "build.py"))
        root = HERE if self.inplace else Path(self.build_lib)
        build["build_init"](root / build["INIT_PATH"])


setup(cffi_modules=["_native/build.py:ffibuilder"], cmdclass={"build_ext": BuildExt})
