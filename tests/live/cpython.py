"""CPython's own tests in a box: what each of them did, with our filter and without one."""

import fnmatch
import os
import shlex
from pathlib import Path

from isolate import Exited, Sandbox, allow

PYENV = Path(os.environ.get("PYENV_ROOT", "/root/.pyenv")) / "versions"
MODULES = ("test_os", "test_socket", "test_subprocess", "test_threading", "test_asyncio")
SECONDS = 1200

SEEN = "/tmp/seen"
ORDER = ("", "passed", "skipped", "failed")

# `python -m test`, with each test's outcome in a file: its own XML breaks off at errors in threads.
DRIVER = f"""
import runpy, sys, unittest
seen = open({SEEN!r}, "a", buffering=1)
def tell(method, outcome):
    plain = getattr(unittest.TestResult, method)
    def told(self, test, *args):
        if outcome or (args and args[-1]):
            print(test.id(), outcome or "failed", sep="\\t", file=seen)
        self.buffer = self.buffer and hasattr(sys.stderr, "getvalue")
        return plain(self, test, *args)
    setattr(unittest.TestResult, method, told)
tell("addSuccess", "passed"), tell("addExpectedFailure", "passed"), tell("addSkip", "skipped")
tell("addError", "failed"), tell("addFailure", "failed"), tell("addUnexpectedSuccess", "failed")
tell("addSubTest", "")
sys.argv[0] = "test"
try:
    runpy.run_module("test", run_name="__main__", alter_sys=True)
finally:
    print("end", file=seen)
"""

# What may differ under `SeccompFilter.default()`: the test, and which refusal is why.
EXPLAINED = {
    "test_socket.*UDPLITE*": "UDP-Lite, protocol 136: only ICMP, TCP, UDP and ICMPv6 are let in",
    "test_socket.*UdpLite*": "the same",
    "test_socket.LinuxKernelCryptoAPI.*": "AF_ALG: only UNIX, INET, INET6 and NETLINK_ROUTE",
    "test_socket.*VSOCK*": "AF_VSOCK: the same",
    "test_socket.*CAN*": "AF_CAN: the same",
    "test_socket.*RDS*": "AF_RDS: the same",
    "test_socket.*SCTP*": "SCTP, protocol 132: only ICMP, TCP, UDP and ICMPv6 are let in",
    "test_socket.*Bluetooth*": "AF_BLUETOOTH: only UNIX, INET, INET6 and NETLINK_ROUTE",
}


def installed(minor):
    """The newest of a minor version; none where the directory is not ours to read."""
    if not os.access(PYENV, os.R_OK | os.X_OK):
        return []
    return sorted(PYENV.glob(f"3.{minor}.*"))[-1:]


def pythons():
    """The interpreters that are installed here, 3.10 to 3.13, each with its `test` package."""
    found = []
    for minor in (10, 11, 12, 13):
        for root in installed(minor):
            if (root / f"lib/python3.{minor}/test/test_os.py").is_file() or (
                root / f"lib/python3.{minor}/test/test_os"
            ).is_dir():
                found.append(root)
    return found


def box(root, filtered):
    """A Sandbox with room for the tests; without a filter by its token."""
    bare = {} if filtered else {"seccomp": False, "allow": [allow.SystemCalls()]}
    return Sandbox(read=[str(root)], mem="1G", tmp="512M", timeout=SECONDS, **bare)


def run_module(root, module, filtered, only=()):
    """Test -> outcome, of one module of CPython's tests (or of some tests of it)."""
    words = [str(root / "bin/python3"), "-I", "-c", DRIVER, "--timeout", "300"]
    for each in only:
        words += ["-m", each]
    command = (
        f"{shlex.join([*words, module])} >/tmp/log 2>&1; tail -c 2000 /tmp/log >&2; cat {SEEN}"
    )
    done = box(root, filtered).run(["/bin/sh", "-c", command], capture_output=True, text=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.outcome == Exited(0) and lines[-1:] == [["end"]], (done.outcome, done.stderr)
    found = {}
    for name, told in lines[:-1]:  # of several answers (sub-tests) the worst
        found[name] = max(told, found.get(name, ""), key=ORDER.index)
    return found


def difference(without, filtered):
    """Test -> (without the filter, with it), where they are not the same."""
    return {
        name: (without.get(name, "absent"), filtered.get(name, "absent"))
        for name in {*without, *filtered}
        if without.get(name) != filtered.get(name)
    }


def explained(module, name):
    """The reason why a test may differ; None: it may not."""
    short = name.removeprefix("test.")
    dotted = short if short.startswith(module) else f"{module}.{short}"
    for pattern, reason in EXPLAINED.items():
        if fnmatch.fnmatchcase(dotted, pattern):
            return reason
    return None
