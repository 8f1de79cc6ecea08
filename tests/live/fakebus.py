# SPDX-License-Identifier: Apache-2.0
"""A D-Bus daemon with a systemd manager on it, as small as a test needs: for one client."""

import socket
import threading

from jeepney import DBusAddress, HeaderFields, MessageType, new_error, new_method_return, new_signal
from jeepney.low_level import Parser

MANAGER = DBusAddress(
    "/org/freedesktop/systemd1",
    bus_name="org.freedesktop.systemd1",
    interface="org.freedesktop.systemd1.Manager",
)
JOB = "/org/freedesktop/systemd1/job/7"


class FakeBus:
    """`result`: how the job ends; None: never. `refuse`: (name, text) of the error instead."""

    def __init__(self, path, result="done", refuse=None, other_first=True):
        self.path, self.result, self.refuse, self.other_first = (
            str(path),
            result,
            refuse,
            other_first,
        )
        self.calls, self.started = [], threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.serial = 0
        self.thread = threading.Thread(target=self.serve, name="fakebus")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def serve(self):
        """One client: SASL by lines, then messages until it hangs up."""
        try:
            self.client, _ = self.listener.accept()
        except OSError:
            return
        with self.client:
            self.authenticate()
            parser = Parser()
            while data := self.client.recv(65536):
                parser.add_data(data)
                while (message := parser.get_next_message()) is not None:
                    self.answer(message)

    def authenticate(self):
        data = b""
        while not data.endswith(b"BEGIN\r\n"):
            got = self.client.recv(1)
            assert got
            data += got
            if data.endswith(b"\r\n"):
                line = data.strip(b"\0").splitlines()[-1]
                if line.startswith(b"AUTH"):
                    self.client.sendall(b"OK 1234deadbeef\r\n")

    def send(self, message):
        self.serial += 1
        self.client.sendall(message.serialise(self.serial))

    def removed(self, job, unit, result):
        signal = new_signal(MANAGER, "JobRemoved", "uoss", (7, job, unit, result))
        signal.header.fields[HeaderFields.sender] = ":1.1"
        self.send(signal)

    def answer(self, message):
        fields = message.header.fields
        member = fields[HeaderFields.member]
        self.calls.append((member, message.body))
        assert message.header.message_type is MessageType.method_call
        if member == "Hello":
            self.send(new_method_return(message, "s", (":1.42",)))
        elif member != "StartTransientUnit":
            self.send(new_method_return(message))
        elif self.refuse:
            self.send(new_error(message, self.refuse[0], "s", (self.refuse[1],)))
        else:
            unit = message.body[0]
            if self.other_first:
                self.removed("/org/freedesktop/systemd1/job/6", "other.service", "failed")
            self.send(new_method_return(message, "o", (JOB,)))
            self.started.set()
            if self.result is not None:
                self.removed(JOB, unit, self.result)
