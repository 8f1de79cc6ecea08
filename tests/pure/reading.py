"""What a layer's rules say, as diagrams made from the rules alone: the compiler is held to it."""

from isolate.abi.syscalls import AUDIT_ARCH, X32_BIT, names, numbers
from isolate.plan.bpf.assemble import RETURNS
from isolate.plan.bpf.symbolic import LOWER, UPPER, word, word_bits
from isolate.policy.rules import KILL_PROCESS, STRICTNESS, Compare


def value(action):
    """SECCOMP_RET_* with its data."""
    return RETURNS[action.name] | action.data


def holds(space, test):
    """Where a condition holds: bit by bit over the argument's 64, or its lower 32."""
    bits = [*word_bits(UPPER[test.index]), *word_bits(LOWER[test.index])][-test.width :]
    wanted = [test.value >> place & 1 for place in range(test.width)]
    asked = [test.mask >> place & 1 for place in range(test.width)]
    equal = {
        Compare.EQ: 1, Compare.NE: 0, Compare.LT: 0, Compare.LE: 1, Compare.GT: 0, Compare.GE: 1,
        Compare.MASKED_EQ: 1,
    }[test.compare]  # fmt: skip
    less = int(test.compare in (Compare.LT, Compare.LE, Compare.NE))
    more = int(test.compare in (Compare.GT, Compare.GE, Compare.NE))
    found = space.terminal(equal)
    for place, bit in enumerate(reversed(bits)):
        if test.compare is Compare.MASKED_EQ and not asked[place]:
            found = space.no if wanted[place] else found
        elif wanted[place]:
            found = space.node(bit, space.terminal(less), found)
        else:
            found = space.node(bit, found, space.terminal(more))
    return found


def decided(space, layer, call):
    """What the rules say of a call: of those that hold the strictest, else the default."""
    found = space.terminal(value(layer.default))
    order = sorted(
        (rule for rule in layer.rules if rule.syscall == call),
        key=lambda rule: (STRICTNESS.index(rule.action.name), rule.action.data),
    )
    for rule in reversed(order):
        every = space.yes
        for test in rule.conditions:
            every = space.both(every, holds(space, test))
        found = space.choose(every, space.terminal(value(rule.action)), found)
    return found


def differing(space, answers, layer, arch):
    """The calls of an architecture for which a program's answers are not what the rules say."""
    here = space.descend(answers, word(4, AUDIT_ARCH[arch]))
    return [
        name
        for name, number in numbers(arch).items()
        if space.descend(here, word(0, number)) != decided(space, layer, name)
    ]


def others(answers, space, layer, arch):
    """Answers to all that is no known call of `arch`: (numbers no table knows, x32's)."""
    here = space.descend(answers, word(4, AUDIT_ARCH[arch]))
    unknown, x32 = set(), set()
    gaps = {n + 1 for n in numbers(arch).values()} - set(names(arch))
    for number in {*gaps, 600, 100_000, X32_BIT - 1}:
        unknown.add(space.value(space.descend(here, word(0, number))))
    for number in (X32_BIT, X32_BIT + 39, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        x32.add(space.value(space.descend(here, word(0, number))))
    wanted = {value(layer.unknown or layer.default)}
    return (unknown, x32) == (wanted, {value(KILL_PROCESS)} if arch == "x86_64" else wanted)
