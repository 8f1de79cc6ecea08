# SPDX-License-Identifier: Apache-2.0
"""What `Chroot.host_view()` holds: system directories, the running Python, a made-up /etc. Pure."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from isolate.abi.flags import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from isolate.abi.ops import OpCode, Phase
from isolate.plan.lower import mount
from isolate.plan.lower.draft import Draft, encoded
from isolate.policy.chroot import Chroot
from isolate.policy.fields import inside
from isolate.policy.identity import Identity
from isolate.policy.namespace import Namespace
from isolate.policy.network import Network

__all__ = ["host_view"]

# Places that every box has for itself; /var/tmp is a link to /tmp.
OWN = ("/tmp", "/var/tmp", "/dev", "/proc")
SAFE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
READ_ONLY = SAFE | MOUNT_ATTR_RDONLY


def etc_files(draft: Draft) -> dict[str, str]:
    """An /etc that names nobody of this machine."""
    who = draft.policy.get(Identity) or Identity()
    namespace = draft.policy.get(Namespace)
    name = (namespace.hostname if namespace else None) or "sandbox"
    return {
        "/etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\n"
        f"sandbox:x:{who.uid}:{who.gid}:sandbox:/tmp:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        "/etc/group": f"root:x:0:\nsandbox:x:{who.gid}:\nnogroup:x:65534:\n",
        "/etc/hosts": f"127.0.0.1 localhost {name}\n::1 localhost {name}\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "/etc/hostname": f"{name}\n",
        "/etc/shells": "/bin/sh\n/bin/bash\n",
    }


def wants_host_network(draft: Draft) -> bool:
    """Whether names are to be looked up with the machine's own resolver."""
    network = draft.policy.get(Network)
    return network is not None and network.kind == "host"


def made_up(chroot: Chroot, draft: Draft) -> None:
    """Files and links that stand for the machine's own."""
    for path, text in etc_files(draft).items():
        draft.op(
            OpCode.FILE, Phase.MOUNT, f"write {path}", chroot,
            encoded(path), text.encode(), nums=(0o644,),
        )  # fmt: skip
    if wants_host_network(draft):
        draft.bind("/etc/resolv.conf", "/etc/resolv.conf", READ_ONLY, chroot, optional=True)
    else:
        draft.op(
            OpCode.FILE, Phase.MOUNT, "write /etc/resolv.conf", chroot,
            b"/etc/resolv.conf", b"", nums=(0o644,),
        )  # fmt: skip
    for path in ("/home", "/run", "/root", "/opt", "/srv", "/mnt"):
        draft.op(OpCode.MKDIR, Phase.MOUNT, f"make {path}", chroot, encoded(path), nums=(0o755,))
    draft.op(
        OpCode.SYMLINK, Phase.MOUNT, "link /var/tmp to /tmp", chroot, b"/tmp", b"/var/tmp"
    )


def link(draft: Draft, chroot: Chroot, path: str, text: str) -> None:
    """The host's symbolic link, again."""
    draft.op(
        OpCode.SYMLINK, Phase.MOUNT, f"link {path} to {text}", chroot,
        encoded(text), encoded(path),
    )  # fmt: skip


def system(chroot: Chroot, draft: Draft) -> list[str]:
    """System directories and files, read-only; returns the trees."""
    trees = []
    for path, kind in draft.host.root_entries:
        if kind.startswith("link:"):
            link(draft, chroot, path, kind[5:])
        else:
            draft.bind(path, path, READ_ONLY, chroot, optional=True)
            trees += [path] if kind == "dir" else []
    return trees


def covered(path: str, trees: list[str]) -> bool:
    """Whether a tree that is bound already holds it."""
    return any(inside(path, tree) for tree in trees)


def python(chroot: Chroot, draft: Draft, trees: list[str], later: list[str]) -> None:
    """The interpreter where it is on the host, so that its paths stay true.

    What lies below a place of the box's own (a venv in /tmp) is bound anew in every box.
    """
    facts = draft.host.python
    for path in sorted(facts.trees, key=lambda each: each.count("/")):
        if not covered(path, trees) and path not in later:
            with own_or_shared(path, draft):
                draft.bind(path, path, READ_ONLY, chroot, optional=True)
            trees.append(path)
    links = {path for path, kind in draft.host.root_entries if kind.startswith("link:")}
    for path, text in facts.links:
        if path not in links and not covered(path, [*trees, *later]):
            with own_or_shared(path, draft):
                link(draft, chroot, path, text)


def own_or_shared(path: str, draft: Draft) -> AbstractContextManager[None]:
    """Where something at `path` has to be made."""
    return nullcontext() if covered(path, list(OWN)) else draft.shared()


def granted(chroot: Chroot, draft: Draft) -> None:
    """read= and write=, at the same place; the caller's files are the program's."""
    both = [(path, READ_ONLY) for path in chroot.read]
    both += [(path, SAFE) for path in chroot.write]
    for path, attr in sorted(both, key=lambda each: each[0].count("/")):
        draft.bind(path, path, attr, chroot, owned=True)


def host_view(chroot: Chroot, draft: Draft) -> None:
    """Fill the root, from the top down."""
    with draft.shared():
        trees = system(chroot, draft)
        made_up(chroot, draft)
        mount.devices(draft, chroot, "/dev")
    mount.private_dev(draft, chroot, "/dev")
    mount.tmpfs(draft, chroot, "/tmp", chroot.tmp or 64 << 20, 0o1777)
    namespace = draft.policy.get(Namespace)
    if namespace is not None and namespace.pid:
        mount.proc(draft, chroot, "/proc")
    if chroot.interpreter:
        python(chroot, draft, trees, [*chroot.read, *chroot.write])
    granted(chroot, draft)
