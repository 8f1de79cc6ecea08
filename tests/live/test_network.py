"""Which links there are inside, and what is reached through them."""

import os
import socket
import sys

import pytest

from isolate import Namespace, Network, PolicyError, Sandbox, allow
from tests.live.helpers import ROOT

LINKS = (
    "import socket, fcntl, struct\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "ask = lambda n: fcntl.ioctl(s, 0x8913, struct.pack('16sh', n.encode(), 0))\n"
    "up = lambda n: struct.unpack('16sh', ask(n)[:18])[1] & 1\n"
    "print([(name, up(name)) for _, name in socket.if_nameindex()])"
)
TALK = (
    "import socket\n"
    "server = socket.create_server(('127.0.0.1', 0))\n"
    "client = socket.create_connection(server.getsockname(), 2)\n"
    "print('reached')"
)


def python(run, code):
    return run([sys.executable, "-c", code], capture_output=True, text=True)


def user():
    return Namespace() if ROOT else Namespace(user=True)


def test_none_has_a_loopback_that_is_down():
    with user(), Network.none() as scope:
        assert python(scope.run, LINKS).stdout == "[('lo', 0)]\n"
        assert "unreachable" in python(scope.run, TALK).stderr


def test_a_loopback_is_up_and_alone():
    with user(), Network.loopback() as scope:
        assert python(scope.run, LINKS).stdout == "[('lo', 1)]\n"
        assert python(scope.run, TALK).stdout == "reached\n"


@pytest.mark.parametrize("network", [Network.none(), Network.loopback()], ids=str)
def test_a_bare_network_is_not_the_callers(network):
    """It brings a network namespace: else nothing of it would hold."""
    with user(), network as scope:
        done = scope.run(["readlink", "/proc/self/ns/net"], capture_output=True, text=True)
    assert done.stdout.strip() != os.readlink("/proc/self/ns/net")


def test_servers_of_the_machine_are_out_of_reach_but_for_the_host_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ask = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('in')"
        assert "refused" in python(Sandbox().run, ask).stderr.lower()
        # By the network itself, or by Landlock before it.
        told = python(Sandbox(network=Network.none()).run, ask).stderr
        assert "unreachable" in told or "Permission denied" in told
        shared = Sandbox(network=Network.host(), allow=[allow.HostNetwork()])
        assert python(shared.run, ask).stdout == "in\n"
        also = Sandbox(net=False, allow=[allow.HostNetwork()])
        assert python(also.run, ask).stdout == "in\n"


def test_abstract_sockets_of_the_machine_are_out_of_reach():
    name = f"\0isolate-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        ask = f"import socket; socket.socket(socket.AF_UNIX).connect({name!r}); print('in')"
        told = python(Sandbox().run, ask).stderr
        assert "refused" in told or "not permitted" in told
        shared = Sandbox(
            net=False, allow=[allow.HostNetwork(), allow.Unlocked()], landlock=False
        )
        assert python(shared.run, ask).stdout == "in\n"


def test_the_narrower_network_wins():
    with user(), Network.none(), Network.loopback() as scope:
        assert python(scope.run, LINKS).stdout == "[('lo', 0)]\n"


def test_the_host_network_needs_its_token():
    with pytest.raises(PolicyError, match=r"allow\.HostNetwork"):
        Sandbox(network=Network.host())
    with pytest.raises(PolicyError, match="none, loopback, host"):
        Network("bridge")
