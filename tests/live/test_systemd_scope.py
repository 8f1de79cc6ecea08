# SPDX-License-Identifier: Apache-2.0
"""A scope of our own by D-Bus: what is asked, what is waited for, and each way that it fails."""

import os
import socket

import pytest

pytest.importorskip("jeepney")

from isolate.errors import HostLacks
from isolate.host import cgroups
from isolate.supervise import cgroup_place, systemd_scope
from tests.live.fakebus import FakeBus


@pytest.fixture
def arrives(monkeypatch):
    """The kernel then says that we are in the unit that was asked for."""
    bus = {}
    monkeypatch.setattr(
        systemd_scope, "own_cgroup", lambda: f"/sys/fs/cgroup/{unit_of(bus['bus'])}"
    )
    return bus


def unit_of(bus):
    return next((body[0] for member, body in bus.calls if member == "StartTransientUnit"), "none")


def properties_of(bus):
    (body,) = [body for member, body in bus.calls if member == "StartTransientUnit"]
    return body, dict(body[2])


def test_the_scope_is_delegated_and_holds_this_process_alone(tmp_path, arrives):
    with FakeBus(tmp_path / "bus") as bus:
        arrives["bus"] = bus
        assert systemd_scope.start(bus.path) == ""
        body, properties = properties_of(bus)
    assert body[0].startswith(f"isolate-{os.getpid()}-")
    assert body[0].endswith(".scope")
    assert (body[1], body[3]) == ("fail", [])
    assert properties["Delegate"] == ("b", True)
    assert properties["PIDs"] == ("au", [os.getpid()])
    assert [member for member, _ in bus.calls][:3] == ["Hello", "AddMatch", "Subscribe"]


@pytest.mark.parametrize("result", ["failed", "canceled", "timeout", "dependency"])
def test_a_job_that_failed_is_no_scope(tmp_path, arrives, result):
    with FakeBus(tmp_path / "bus", result=result) as bus:
        arrives["bus"] = bus
        assert f"ended as {result}" in systemd_scope.start(bus.path)


def test_a_job_that_never_ends_is_not_waited_for_for_ever(tmp_path, arrives, monkeypatch):
    monkeypatch.setattr(systemd_scope, "SECONDS", 0.5)
    with FakeBus(tmp_path / "bus", result=None) as bus:
        arrives["bus"] = bus
        assert "didn't answer" in systemd_scope.start(bus.path)


def test_a_refusal_is_told_with_its_words(tmp_path):
    refuse = ("org.freedesktop.DBus.Error.AccessDenied", "Permission denied by polkit")
    with FakeBus(tmp_path / "bus", refuse=refuse) as bus:
        why = systemd_scope.start(bus.path)
    assert "AccessDenied" in why
    assert "polkit" in why


def test_a_job_that_lied_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(systemd_scope, "SECONDS", 0.5)
    monkeypatch.setattr(systemd_scope, "own_cgroup", lambda: "/sys/fs/cgroup/session.scope")
    with FakeBus(tmp_path / "bus") as bus:
        assert "this process is in /sys/fs/cgroup/session.scope" in systemd_scope.start(bus.path)


def test_no_bus_and_a_bus_that_hangs_up(tmp_path):
    assert "No such file" in systemd_scope.start(str(tmp_path / "absent"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "deaf"))
        assert "refused" in systemd_scope.start(str(tmp_path / "deaf"))  # nobody listens


def test_the_place_tries_a_scope_once_and_says_both_reasons(monkeypatch):
    tried = []
    monkeypatch.setattr(cgroup_place, "find_top", lambda: "not ours to write")
    monkeypatch.setattr(cgroup_place, "SCOPES", set())
    monkeypatch.setattr(systemd_scope, "start", lambda: tried.append(1) or "polkit said no")
    for _ in range(2):
        with pytest.raises(HostLacks, match="not ours to write") as caught:
            cgroup_place.search()
    assert tried == [1]
    assert "no" in str(caught.value)


def test_a_place_that_a_scope_gave_is_used(monkeypatch, tmp_path):
    found = iter(["not ours", cgroups.Top(str(tmp_path), ("memory",))])
    monkeypatch.setattr(cgroup_place, "find_top", lambda: next(found))
    monkeypatch.setattr(cgroup_place, "SCOPES", set())
    monkeypatch.setattr(systemd_scope, "start", lambda: "")
    assert cgroup_place.search() == str(tmp_path)
