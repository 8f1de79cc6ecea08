"""What a view from inside lacks against ours; nothing is started."""

import pytest

from bench.inside import lacks, parse

CALLS = {"unshare": -1, "clone3": -38, "bpf": -1, "TIOCSTI": -1}
OPENS = {"/etc/shadow": -2, "/tmp/isolate-look": 0, "/root": 0, "/usr/isolate-look": -30}
READS = {"/proc/kallsyms": 0}
KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
MOUNT = "1 0 0:1 / / ro,nosuid,nodev - tmpfs tmpfs ro"


def report(**change):
    """A `look` of a good box, with some lines changed by name."""
    own = {"core": 0, "sid": 2, "lo": 1, **change.get("own", {})}
    spaces = {kind: f"{kind}:[2]" for kind in KINDS} | change.get("ns", {})
    status = {
        **dict.fromkeys(("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"), "0"),
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Uid": "1000\t1000\t1000\t1000",
        **change.get("status", {}),
    }
    lines = [f"own {name} {value}" for name, value in own.items()]
    lines += [f"ns {kind} {value}" for kind, value in spaces.items()]
    lines += [f"status {name}:\t{value}" for name, value in status.items()]
    lines += [f"uid_map {row}" for row in change.get("maps", ["1000 1073741825 1"])]
    lines += [f"mount {row}" for row in change.get("mounts", [MOUNT])]
    lines += ["link Inter-| Receive", *(f"link {x}: 0 0" for x in change.get("links", ["lo"]))]
    for kind, base in (("open", OPENS), ("read", READS), ("call", CALLS)):
        table = {**base, **change.get(kind, {})}
        lines += [f"{kind} {name} {value}" for name, value in table.items()]
    return parse("\n".join(lines))


HOST = report(ns={kind: f"{kind}:[1]" for kind in KINDS}, own={"sid": 7})
OURS = report()


def test_ours_lacks_nothing_against_itself():
    assert lacks(OURS, OURS, HOST) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ns": {"net": "net:[1]"}}, "shares net"),
        ({"status": {"CapEff": "1ff"}}, "capabilities (Eff)"),
        ({"status": {"NoNewPrivs": "0"}}, "no no_new_privs"),
        ({"status": {"Seccomp": "0"}}, "no filter"),
        ({"maps": ["1000 0 1"]}, "is host uid 0"),
        ({"call": {"unshare": -22}}, "filter lets pass unshare"),
        ({"open": {"/etc/shadow": 0}}, "opens /etc/shadow"),
        ({"open": {"/tmp/isolate-look": -13}}, "has no /tmp"),
        ({"read": {"/proc/kallsyms": 64}}, "shows /proc/kallsyms"),
        ({"own": {"core": -1}}, "core dumps"),
        ({"own": {"sid": 0}}, "no session of its own"),
        ({"own": {"sid": 7}}, "no session of its own"),
        ({"own": {"lo": 0}}, "lo is down"),
        ({"own": {"fd": 9}}, "descriptors of the caller"),
        ({"links": ["lo", "eth0"]}, "sees lo eth0"),
        ({"mounts": ["1 0 0:1 / / ro,nodev - tmpfs t ro"]}, "1 mounts without nosuid"),
        (
            {"mounts": ["1 0 8:1 / /usr rw,nosuid - ext4 /dev/sda rw"]},
            "1 mounts of the host writable",
        ),
    ],
)
def test_each_weakness_is_told(change, told):
    assert lacks(report(**change), OURS, HOST) == [told]


def test_a_refusal_by_another_error_is_one():
    assert lacks(report(call={"bpf": -38}), OURS, HOST) == []
    assert lacks(report(call={"bpf": -13}), OURS, HOST) == []


def test_a_device_of_dev_is_no_host_file_system():
    null = "2 1 0:6 /null /proc/kcore rw,nosuid - devtmpfs devtmpfs rw"
    assert lacks(report(mounts=[MOUNT, null]), OURS, HOST) == []


def test_a_report_that_stops_is_refused():
    with pytest.raises(ValueError, match="not whole"):
        parse("own core 0\nns user user:[1]")
