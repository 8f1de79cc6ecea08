"""Which part of the live suite runs in which kind of container; see tools/nested/leg.

Where a default `Sandbox()` works, the files below run whole, but for what needs rights that the
container has not; elsewhere only tests/nested does.
"""

import os

KIND = os.environ.get("ISOLATE_NESTED", "")
WHOLE = ("unmasked", "bwrap")
FILES = (
    "test_run.py",
    "test_call.py",
    "test_seccomp.py",
    "test_namespace.py",
    "test_rlimit.py",
    "test_capabilities.py",
    "test_network.py",
)
# Root without CAP_SYS_ADMIN: no idmapped mount, no bare namespace; nobody's cgroup is ours.
FORBIDDEN = {
    "unmasked": (
        "test_read_and_write_grant_just_that",
        "test_a_directory_can_be_the_root",
        "test_a_link_in_the_root_does_not_lead_out",
        "test_bare_primitives_do_what_they_say",
        "test_real_tools_work_inside",
        "test_numpy_computes_without_a_storm_of_threads",
    ),
    "bwrap": (),
}


def wanted(item):
    if item.path.parent.name == "nested":
        return True
    name = item.originalname or item.name
    return KIND in WHOLE and item.path.name in FILES and name not in FORBIDDEN[KIND]


def pytest_collection_modifyitems(config, items):
    if not KIND:
        return
    left = [item for item in items if not wanted(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if wanted(item)]
