"""A host process for `test_host_killed.py`: it opens boxes until somebody kills it.

`python hosting.py MARK`: every program inside carries MARK in its arguments. Prints "go" once a
box works.
"""

import sys
import threading

from isolate import Sandbox

MARK = sys.argv[1]
LIMITS = {"mem": "64M"} if sys.argv[2] == "root" else {}


def one_shots():
    while True:
        Sandbox(**LIMITS).run(["/bin/sh", "-c", f"sleep 0.01; : {MARK}"])


def live():
    while True:
        with Sandbox(files={"x": b"1"}, **LIMITS) as box:
            box.call(len, MARK)
            box.run(["/bin/sh", "-c", f"(sleep 30; : {MARK}) & : {MARK}"])


def main():
    Sandbox(**LIMITS).run(["/bin/true"])
    for work in (one_shots, live):
        threading.Thread(target=work, daemon=True).start()
    print("go", flush=True)
    threading.Event().wait(30)  # bounded, if nobody kills us


if __name__ == "__main__":
    main()
