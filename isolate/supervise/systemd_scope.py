# SPDX-License-Identifier: Apache-2.0
"""A transient scope of our own, asked of systemd by D-Bus: a cgroup that is delegated to us.

`jeepney` (the extra `systemd`) speaks the protocol. The scope ends with its last process.
Source: org.freedesktop.systemd1(5), StartTransientUnit; systemd docs/CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import os
import time
from typing import Any

from isolate.host.cgroups import own_cgroup, user_bus

__all__ = ["start"]

SECONDS = 20.0
MANAGER = "/org/freedesktop/systemd1"
SERVICE = "org.freedesktop.systemd1"
INTERFACE = "org.freedesktop.systemd1.Manager"


def start(address: str | None = None) -> str:
    """Move this process into a new scope with Delegate=yes; "" when it is there, else why not."""
    try:
        from jeepney.io.blocking import open_dbus_connection
        from jeepney.wrappers import DBusErrorResponse
    except ImportError:
        return "jeepney is not installed: pip install 'isolate-linux[systemd]'"
    path = address or user_bus()
    if path is None:
        return "no bus on which systemd listens to us"
    bus = path if ":" in path else f"unix:path={path}"
    try:
        with open_dbus_connection(bus) as connection:
            return ask(connection)
    except DBusErrorResponse as error:
        return f"systemd refused: {error.name} {' '.join(map(str, error.data or ()))}".rstrip()
    except TimeoutError:
        return f"systemd didn't answer on {path} within {SECONDS:g} s"
    except (OSError, ValueError, ConnectionError) as error:
        return f"{path}: {error or type(error).__name__}"


def unit() -> str:
    """A name that no other process has."""
    return f"isolate-{os.getpid()}-{os.urandom(4).hex()}.scope"


def ask(connection: Any) -> str:
    """Subscribe, start the unit, wait for its job; "" when it is done."""
    from jeepney import DBusAddress, MatchRule, message_bus, new_method_call
    from jeepney.io.blocking import Proxy

    manager = DBusAddress(MANAGER, bus_name=SERVICE, interface=INTERFACE)
    rule = MatchRule(type="signal", interface=INTERFACE, member="JobRemoved", path=MANAGER)
    Proxy(message_bus, connection, timeout=SECONDS).AddMatch(rule)
    end = time.monotonic() + SECONDS
    with connection.filter(rule, bufsize=64) as jobs:
        subscribe = new_method_call(manager, "Subscribe")
        reply(connection, subscribe)
        name = unit()
        properties = [
            ("Description", ("s", f"isolate boxes of process {os.getpid()}")),
            ("Delegate", ("b", True)),
            ("PIDs", ("au", [os.getpid()])),
            ("CollectMode", ("s", "inactive-or-failed")),
        ]
        body: tuple[Any, ...] = (name, "fail", properties, [])
        call = new_method_call(manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        (job,) = reply(connection, call)
        while True:
            signal = connection.recv_until_filtered(jobs, timeout=max(0.0, end - time.monotonic()))
            _, path, told, result = signal.body
            if path == job:
                break
    if (told, result) != (name, "done"):
        return f"the job for {name} ended as {result}"
    return arrived(name, end)


def reply(connection: Any, call: Any) -> Any:
    """The body of a call's answer. Raises: DBusErrorResponse, TimeoutError."""
    from jeepney import MessageType
    from jeepney.wrappers import DBusErrorResponse

    answer = connection.send_and_get_reply(call, timeout=SECONDS)
    if answer.header.message_type is MessageType.error:
        raise DBusErrorResponse(answer)
    return answer.body


def arrived(name: str, end: float) -> str:
    """"" once the kernel says that we are in the scope: a job's word is not enough."""
    while (own := own_cgroup()) is None or os.path.basename(own) != name:
        if time.monotonic() > end:
            return f"{name} was started, but this process is in {own}"
        time.sleep(0.01)
    return ""
