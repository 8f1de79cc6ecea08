"""Which part of the live suite runs in which kind of container; see tools/nested/leg.

Where a default `Sandbox()` works, tools/nested/leg gives some files of tests/live as well; of those
this leaves out what needs rights that the container has not.
"""

import os

KIND = os.environ.get("ISOLATE_NESTED", "")
# Root without CAP_SYS_ADMIN: no idmapped mount, no bare namespace; nobody's cgroup is ours.
FORBIDDEN = {
    "unmasked": (
        "test_read_and_write_grant_just_that",
        "test_a_directory_can_be_the_root",
        "test_a_link_in_the_root_does_not_lead_out",
        "test_bare_primitives_do_what_they_say",
        "test_real_tools_work_inside",
        "test_numpy_computes_without_a_storm_of_threads",
        "test_a_bind_is_read_only_unless_said",
        "test_a_missing_source_names_the_mount_and_what_to_do",
    ),
    # No systemd to ask for a scope; pid 1 is the same user's.
    "bwrap": (
        "test_memory_without_delegation_is_refused_or_weakened",
        "test_an_ordinary_user_is_told_to_join_the_user_namespace_too",
    ),
}


def wanted(item):
    return (item.originalname or item.name) not in FORBIDDEN.get(KIND, ())


def pytest_collection_modifyitems(config, items):
    left = [item for item in items if not wanted(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if wanted(item)]
