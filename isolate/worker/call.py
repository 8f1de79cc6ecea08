# SPDX-License-Identifier: Apache-2.0
"""The caller's side of a call: what is sent, and what is made of the answer."""

from __future__ import annotations

import builtins
import enum
import json
import os
import sys
import threading
import types
import typing
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from isolate.errors import IsolateError, RemoteError, ReplyError
from isolate.worker import wire

__all__ = ["RemoteTraceback", "allowed_types", "answer", "argv", "pickled", "told"]

BOOT = """
import importlib.util, json, sys
def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
folder, path = json.loads(sys.argv[1])
sys.argv[:] = [""]
wire = load("isolate_worker_wire", folder + "/wire.py")
keeper = load("isolate_worker_keeper", folder + "/keeper.py")
load("isolate_worker_main", folder + "/main.py").serve(wire, keeper, path)
"""
MAX_TEXT = 10_000  # characters of a message or a traceback that came from inside
REGISTRY = threading.Lock()  # cloudpickle's list of modules by value is one for all threads
EXCEPTIONS = {
    f"builtins.{name}": kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and "Group" not in name
}


class RemoteTraceback(Exception):
    """The traceback inside, as text; the cause of an exception that `call` raises."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def argv(executable: str, path: list[str]) -> list[str]:
    """How the worker is started: isolated mode, nothing from the environment or the directory."""
    folder = str(Path(wire.__file__).parent)
    return [executable, "-I", "-c", BOOT, json.dumps([folder, path])]


def nested(hint: Any) -> typing.Iterator[type]:
    """The classes in an annotation that a reply may rebuild."""
    for each in typing.get_args(hint):
        yield from nested(each)
    if not isinstance(hint, type):
        return
    if issubclass(hint, enum.Enum):
        yield hint
    elif wire.field_names(hint) is not None:
        yield hint
        for each in typing.get_type_hints(hint).values():
            if each is not hint:
                yield from nested(each)


def allowed_types(fn: Any) -> tuple[type, ...]:
    """The dataclasses, attrs classes, enums and NamedTuples of a function's return annotation."""
    try:
        hint = typing.get_type_hints(fn).get("return")
    except (NameError, TypeError, AttributeError):
        return ()  # no annotation that could be read: then plain data only
    return tuple(dict.fromkeys(nested(hint)))


def below(path: str, folders: tuple[str, ...]) -> bool:
    """Whether a path is one of these folders, or in one."""
    return any(path == each or path.startswith(each.rstrip("/") + "/") for each in folders)


def modules_of(hidden: tuple[str, ...], shown: tuple[str, ...]) -> list[types.ModuleType]:
    """The loaded top-level modules and packages whose files the inside can't see."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not hidden or not isinstance(file, str) or name == "__main__":
            continue
        path = os.path.abspath(file)
        if below(path, hidden) and not below(os.path.realpath(path), shown):
            top = name.partition(".")[0]
            found[top] = sys.modules.get(top, module)
    return list(found.values())


def pickled(
    fn: Any,
    args: Any,
    kw: Any,
    allowed: tuple[type, ...],
    hidden: tuple[str, ...],
    shown: tuple[str, ...],
) -> bytes:
    """The call as cloudpickle; modules that are hidden inside go by value.

    Args:
        hidden: entries of sys.path that are not shown.
        shown: trees that are, though they may be below a hidden one.

    Raises: IsolateError naming what can't be sent.
    """
    import cloudpickle

    with REGISTRY, ExitStack() as stack:
        already = cloudpickle.list_registry_pickle_by_value()
        for module in modules_of(hidden, shown):
            if module.__name__ in already:
                continue
            cloudpickle.register_pickle_by_value(module)
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        try:
            return bytes(cloudpickle.dumps((fn, args, kw, allowed)))
        except Exception as error:
            raise IsolateError(f"{fn!r} or its arguments can't be sent inside: {error}") from error


def told(text: str) -> str:
    """Text from inside that is bounded, and can't write to the caller's terminal but its letters:
    no escape sequences, no carriage returns."""
    cut = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in cut)


def rebuilt(name: str, args: Any, text: str, trace: str) -> Exception:
    """A built-in exception as itself, any other as RemoteError; the cause is the traceback."""
    kind = EXCEPTIONS.get(name)
    name, text, trace = told(name[:200]), told(text), told(trace)
    error: Exception
    try:
        if kind is None or not isinstance(args, tuple) or len(repr(args)) > 2 * MAX_TEXT:
            raise TypeError("not to be rebuilt")
        error = kind(*args)
    except Exception:  # UnicodeDecodeError("x"), say: the arguments were hostile
        error = RemoteError(name, text, trace)
    error.__cause__ = RemoteTraceback(trace)
    return error


def answer(data: bytes, allowed: tuple[type, ...]) -> Any:
    """The value of a reply.

    Raises: what the call raised; ReplyError for anything that is no reply.
    """
    reply = wire.decode(data, allowed)
    if isinstance(reply, list) and len(reply) == 2 and reply[0] == "v":
        return reply[1]
    if isinstance(reply, list) and len(reply) == 5 and reply[0] == "x":
        name, args, text, trace = reply[1:]
        if all(isinstance(each, str) for each in (name, text, trace)):
            raise rebuilt(name, args, text, trace)
    raise ReplyError("a reply that is neither a value nor an error")
