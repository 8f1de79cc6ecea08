# SPDX-License-Identifier: Apache-2.0
"""One program in a fresh box by other tools; what each lacks is looked at from inside first."""

from __future__ import annotations

from bench.build import build
from bench.harness import Bench, Budget, Contender, each, own_cpu
from bench.inside import lacks, look_here, parse
from bench.peers import Peer, peers
from bench.ways import TRUE, oneshot, sandbox, spawned, static_true

__all__ = ["run"]

SHARES = {"runc": 0.3, "firejail": 0.3}


def checked(bench: Bench, there: list[Peer]) -> tuple[list[tuple[Peer, str]], list[str]]:
    """(each with what it lacks, a line for each that doesn't run here)."""
    look = str(build() / "look")
    host = look_here(look)
    ours = parse(sandbox().run([look], capture_output=True, check=True, text=True).stdout)
    weak = lacks(ours, ours, host)
    if weak:
        raise RuntimeError(f"our own box is not what the others are held to: {weak}")
    able, broken = [], []
    for peer in there:
        try:
            missing = lacks(parse(peer.run(look)), ours, host)
        except (OSError, RuntimeError, ValueError) as error:
            broken.append(f"{peer.name}: does not run here: {error}")
            continue
        able.append((peer, "; ".join([*missing, *peer.cannot])))
    return able, broken


def run(bench: Bench) -> None:
    """Static, then dynamic."""
    there, remarks = peers(bench)
    able, broken = checked(bench, there)
    for title, program in (("a static program", static_true()), ("/bin/true", TRUE)):
        contenders = [Contender("isolate", oneshot(program), "checked from inside", cpu=own_cpu)]
        for peer, missing in able:

            def job(peer: Peer = peer, program: str = program) -> None:
                peer.run(program)

            note = f"lacks: {missing}" if missing else "the same isolation"
            contenders.append(
                Contender(peer.name, each(job), note, share=SHARES.get(peer.name, 1.0), cpu=own_cpu)
            )
        contenders.append(Contender("posix_spawn", spawned(program), "no isolation", cpu=own_cpu))
        row = "one-shot program: faster than each peer"
        budgets = [Budget("isolate", peer.name, 1.0, row) for peer, _ in able]
        bench.compare(title, contenders, budgets, remarks=[*remarks, *broken])
