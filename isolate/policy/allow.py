# SPDX-License-Identifier: Apache-2.0
"""Tokens that widen a `Sandbox` beyond its safe default; a review greps for `allow.`."""

from __future__ import annotations

from attrs import frozen

__all__ = [
    "Allow",
    "Capabilities",
    "HostCgroup",
    "HostIpc",
    "HostMount",
    "HostNetwork",
    "HostPid",
    "HostUser",
    "HostUts",
    "NewPrivileges",
    "OtherNamespaces",
    "SystemCalls",
    "Unlocked",
]


class Allow:
    """Base of the tokens."""


@frozen
class HostNetwork(Allow):
    """The caller's network: every address that the machine reaches, and its abstract sockets."""


@frozen
class HostPid(Allow):
    """The caller's processes can be seen, and signalled where ids allow."""


@frozen
class HostMount(Allow):
    """The caller's mounts and files, as far as ids allow."""


@frozen
class HostUser(Allow):
    """No user namespace: ids inside are the machine's."""


@frozen
class HostIpc(Allow):
    """The caller's System V IPC and message queues."""


@frozen
class HostUts(Allow):
    """The machine's own hostname."""


@frozen
class HostCgroup(Allow):
    """The caller's place in the cgroup tree can be seen."""


@frozen
class Capabilities(Allow):
    """Capabilities inside, over the box's own namespaces."""


@frozen
class NewPrivileges(Allow):
    """set-user-ID programs work: no_new_privs is not set."""


@frozen
class OtherNamespaces(Allow):
    """Namespaces of other processes, as `Namespace.of` names them: their network, their pids, …"""


@frozen
class SystemCalls(Allow):
    """The default filter is not there: `seccomp=` alone decides, and False is none at all."""


@frozen
class Unlocked(Allow):
    """No Landlock of the view: mounts alone hold it, and a program with CAP_SYS_ADMIN may mount."""
