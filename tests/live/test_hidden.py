"""Functions of modules that the inside can't see: they go by value."""

import importlib
import sys

from isolate import Sandbox


def test_a_module_in_a_home_goes_by_value_with_its_helpers(tmp_path, monkeypatch):
    """HOME is never shown; a script run from there finds its own functions all the same."""
    home = tmp_path / "home"
    package = home / "isolate_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tool.py").write_text("def double(n):\n    return 2 * n\n")
    (package / "score.py").write_text(
        "from isolate_plugin.tool import double\n\ndef score(n):\n    return double(n) + 1\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.syspath_prepend(str(home))
    module = importlib.import_module("isolate_plugin.score")
    try:
        assert Sandbox().call(module.score, 20) == 41
        assert not Sandbox().call(lambda path: __import__("os").path.exists(path), str(package))
    finally:
        for name in [each for each in sys.modules if each.startswith("isolate_plugin")]:
            del sys.modules[name]
