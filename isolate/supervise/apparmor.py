# SPDX-License-Identifier: Apache-2.0
"""Profiles in the kernel: checked and loaded by apparmor_parser, told by securityfs and /proc.

A temporary profile's owner holds a lock on a file of its name in RUN; who can take the lock of one
that it did not make knows that the owner is dead, and unloads it. The lock is in /run, since only
root may load profiles, and since a profile of another mount namespace must not look stale.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define

from isolate.errors import HostLacks, PolicyError
from isolate.host import lsm
from isolate.policy import ambient
from isolate.policy.apparmor import AppArmorProfile

__all__ = ["Temporary", "check", "label_of", "load", "loaded", "of", "replace", "unload", "verb"]

PROFILES = "/sys/kernel/security/apparmor/profiles"
TREE = "/sys/kernel/security/apparmor/policy/profiles"
RUN = "/run/isolate-apparmor"
PREFIX = "isolate-"
SBIN = "/usr/sbin:/sbin:/usr/local/sbin"
PARSER_SECONDS = 120.0
LINE = re.compile(r"\bline (\d+)")
ENTRY = re.compile(r"(.*) \((\w+)\)")
COUNT = itertools.count()
RECLAIMED: set[int] = set()
INSTALL = "apt install apparmor"


def parser_path() -> str:
    """apparmor_parser's place. Raises: HostLacks."""
    found = shutil.which("apparmor_parser", path=f"{os.environ.get('PATH', '')}:{SBIN}")
    if found is None:
        raise HostLacks("apparmor", "apparmor_parser is not installed", INSTALL)
    return found


def parse(text: str, *options: str) -> tuple[int, str, str]:
    """(status, stdout, stderr) of the parser. Raises: HostLacks."""
    argv = [parser_path(), "--skip-cache", *options]
    try:
        with ambient.outside():
            done = subprocess.run(
                argv, input=text.encode(), capture_output=True, timeout=PARSER_SECONDS, check=False,
                env={"PATH": SBIN, "LC_ALL": "C"},
            )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostLacks("apparmor", f"{argv[0]}: {error}", INSTALL) from error
    out, err = (each.decode("utf-8", "replace") for each in (done.stdout, done.stderr))
    notes = [line for line in err.splitlines() if line and not line.startswith("Cache read")]
    return done.returncode, out, "\n".join(notes)


CHECKED: set[AppArmorProfile] = set()


def checked_once(profile: AppArmorProfile, name: str | None) -> None:
    """The same text under other names is not read by the parser twice. Raises: PolicyError."""
    if profile not in CHECKED:
        check(profile, name)
        if len(CHECKED) >= 64:
            CHECKED.clear()
        CHECKED.add(profile)


def check(profile: AppArmorProfile, name: str | None = None) -> None:
    """Have the parser read the text without loading it, and say which profiles it holds.

    Raises: PolicyError naming the field behind the line; HostLacks.
    """
    text, fields = profile.rendered(name)
    status, names, told = parse(text, "--skip-kernel-load", "--names")
    wanted = re.search(r'^profile "([^"]+)"', text, re.MULTILINE)
    # The names are looked at, too: where SIGCHLD is ignored no status is to be had.
    if status == 0 and wanted and names.split("\n") == [wanted[1], ""]:
        return
    at = LINE.search(told)
    number = min(int(at[1]), len(fields)) if at else 1
    line = text.splitlines()[number - 1].strip()
    raise PolicyError(
        f"AppArmorProfile.{fields[number - 1]}: apparmor_parser refuses {line!r}: "
        f"{told or f'it holds the profiles {names.split()}'}"
    )


def apply(profile: AppArmorProfile, option: str, doing: str, name: str | None = None) -> None:
    """Check, and hand to the kernel. Raises: PolicyError, HostLacks."""
    usable()
    checked_once(profile, name)
    status, _, told = parse(profile.text(name), option)
    if status:
        raise HostLacks(
            "apparmor", f"{doing} the profile {name or profile.name}: {told or status}",
            "only CAP_MAC_ADMIN of the first user namespace may load profiles",
        )  # fmt: skip


def usable() -> None:
    """Raises: HostLacks without AppArmor."""
    why, _ = lsm.apparmor()
    if why:
        raise HostLacks("apparmor", why, "boot with apparmor=1 security=apparmor")


def named(profile: AppArmorProfile) -> str:
    """Its name. Raises: PolicyError for a temporary one, which boxes load themselves."""
    if profile.name is None:
        raise PolicyError("a temporary AppArmor profile is loaded by the box that runs under it")
    return profile.name


def load(profile: AppArmorProfile) -> None:
    """Load a new one. Raises: PolicyError, HostLacks."""
    apply(profile, "--add", "loading", named(profile))
    expect(named(profile), profile.mode)


def replace(profile: AppArmorProfile) -> None:
    """Load it in place of one that is there. Raises: PolicyError, HostLacks."""
    apply(profile, "--replace", "replacing", named(profile))
    expect(named(profile), profile.mode)


def unload(profile: AppArmorProfile) -> None:
    """Out of the kernel. Raises: HostLacks."""
    usable()
    remove(named(profile))


def remove(name: str) -> None:
    """By name; done if it is not there. Raises: HostLacks."""
    try:
        fd = os.open("/sys/kernel/security/apparmor/.remove", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, name.encode())
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        if name in loaded():
            raise HostLacks("apparmor", f"unloading {name}: {error}", "be root") from error
    except OSError as error:
        raise HostLacks("apparmor", f"unloading {name}: {error.strerror}", "be root") from error


def expect(name: str, mode: str) -> None:
    """Raises: HostLacks, if the kernel has not the profile in that mode."""
    held = loaded().get(name)
    if held is None:
        raise HostLacks("apparmor", f"the profile {name!r} is not loaded", "AppArmorProfile.load()")
    if held != mode:
        raise HostLacks("apparmor", f"the profile {name!r} is in {held} mode, not {mode}", "")


def loaded() -> dict[str, str]:
    """Mode by name. Raises: HostLacks."""
    usable()
    try:
        lines = Path(PROFILES).read_text(encoding="utf-8", errors="replace").splitlines()
    except PermissionError:
        return listed()
    except OSError as error:
        hint = "mount -t securityfs none /sys/kernel/security"
        raise HostLacks("apparmor", f"{PROFILES}: {error.strerror}", hint) from error
    found = (ENTRY.fullmatch(line) for line in lines)
    return {each[1]: each[2] for each in found if each}


def listed() -> dict[str, str]:
    """The same from the tree of files, which others than root may read. Raises: HostLacks."""
    found = {}
    try:
        for folder in Path(TREE).rglob("mode"):
            with suppress(FileNotFoundError):  # unloaded meanwhile
                name = folder.with_name("name").read_text(encoding="utf-8", errors="replace")
                found[name.strip()] = folder.read_text(encoding="ascii").strip()
    except OSError as error:
        raise HostLacks("apparmor", f"{TREE}: {error.strerror}", "be root") from error
    return found


def label_of(pid: int) -> str:
    """A process's label as the kernel prints it. Raises: ProcessLookupError; HostLacks."""
    for kind in ("attr/apparmor/current", "attr/current"):
        try:
            data = Path(f"/proc/{pid}/{kind}").read_bytes()
        except FileNotFoundError:
            continue
        except ProcessLookupError:  # it ended between open and read
            raise
        except OSError as error:
            raise HostLacks("apparmor", f"/proc/{pid}/{kind}: {error.strerror}") from error
        return data.strip(b"\0\n ").decode("utf-8", "replace")
    if Path(f"/proc/{pid}").exists():
        raise HostLacks("apparmor", f"/proc/{pid}/attr can't be read", "")
    raise ProcessLookupError(3, "No such process", f"/proc/{pid}")


def of(pid: int) -> str:
    """A process's label and mode. Raises: HostLacks without AppArmor; ProcessLookupError."""
    usable()
    return label_of(pid)


@define
class Temporary:
    """One box's own profile: loaded, and locked while we live."""

    name: str
    lock_fd: int
    owner: int
    is_loaded: bool = False

    @classmethod
    def make(cls, profile: AppArmorProfile) -> Temporary:
        """Load it under a name of its own. Raises: PolicyError, HostLacks."""
        usable()
        reclaim()
        name = f"{PREFIX}{os.getpid()}-{next(COUNT)}-{os.urandom(4).hex()}"
        made = cls(name, new_lock(name), os.getpid())
        try:
            apply(profile, "--add", "loading", name)
            made.is_loaded = True
            expect(name, profile.mode)
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Unload it; the box's programs are gone by now. A fork of the owner only closes."""
        try:
            if self.owner == os.getpid():
                discard(self.name, self.is_loaded)
        finally:
            os.close(self.lock_fd)


def new_lock(name: str) -> int:
    """An fd that holds the lock of a new file. Raises: HostLacks."""
    try:
        for _ in range(100):
            with suppress(FileExistsError):
                os.mkdir(RUN, 0o700)
            with suppress(FileNotFoundError):  # removed as empty meanwhile
                held = locked_file(name, os.O_CREAT | os.O_EXCL)
                if held is None:
                    raise HostLacks("apparmor", f"{RUN}/{name} is locked by somebody else")
                return held
    except OSError as error:
        raise HostLacks("apparmor", f"locking {RUN}/{name}: {error.strerror}", "be root") from error
    raise HostLacks("apparmor", f"{RUN} vanishes as often as it is made", "")


def locked_file(name: str, flags: int) -> int | None:
    """An fd that holds the lock of a file; None if somebody else has it. Raises: OSError."""
    guard = os.open(RUN, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(guard).st_uid != os.geteuid() or os.fstat(guard).st_mode & 0o022:
            raise HostLacks("apparmor", f"{RUN} belongs to somebody else", f"remove {RUN}")
        fcntl.flock(guard, fcntl.LOCK_EX)
        # Under the directory's lock: nobody sees the file between its making and its lock.
        flags |= os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(name, flags, 0o600, dir_fd=guard)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd
    finally:
        os.close(guard)


def discard(name: str, is_loaded: bool = True) -> None:
    """Unload, then forget the lock, then the folder if it is empty. Raises: HostLacks."""
    if is_loaded:
        remove(name)  # before the lock is gone: who is killed here leaves it to the next start
    with suppress(FileNotFoundError):
        os.unlink(f"{RUN}/{name}")
    with suppress(OSError):  # ENOTEMPTY: others' locks
        os.rmdir(RUN)


def reclaim() -> None:
    """Once a process: unload the profiles whose owner is dead."""
    if os.getpid() in RECLAIMED:
        return
    RECLAIMED.add(os.getpid())
    try:
        names = [name for name in os.listdir(RUN) if name.startswith(PREFIX)]
    except FileNotFoundError:
        return
    for name in names:
        with suppress(FileNotFoundError):
            fd = locked_file(name, 0)
            if fd is not None:
                try:
                    discard(name)
                finally:
                    os.close(fd)


VERBS: dict[str, Callable[..., Any]] = {
    "check": check,
    "load": load,
    "replace": replace,
    "unload": unload,
    "loaded": loaded,
    "of": of,
}


def verb(name: str, *args: Any) -> Any:
    """One of the verbs of `AppArmorProfile`."""
    return VERBS[name](*args)
