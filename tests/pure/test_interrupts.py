# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PT012  what raises is the end of a block
"""What holds signals back: nothing raises inside, all comes later, handlers stay their own."""

import asyncio
import contextvars
import signal
import threading

import pytest

from isolate.supervise import interrupts
from isolate.supervise.interrupts import held_back, let_in, whole


class Came(Exception):
    pass


def raising(number, frame):
    raise Came(number)


@pytest.fixture(autouse=True)
def own():
    """A handler that raises for each; and the state as it was."""
    before = {number: signal.signal(number, raising) for number in interrupts.SIGNALS}
    yield
    handlers = {signal.getsignal(number) for number in interrupts.SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert handlers <= {raising, signal.SIG_IGN, signal.SIG_DFL}
    assert (interrupts.STATE.depth, interrupts.STATE.closed) == (0, False)
    assert interrupts.STATE.waiting == []


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_what_comes_inside_raises_afterwards(number):
    steps = []
    with pytest.raises(Came):
        with held_back():
            signal.raise_signal(number)
            steps.append("inside")
        steps.append("at once")  # a handler runs before this line, or before the next call
        len(steps)
    assert steps[:1] == ["inside"]


def test_nothing_comes_where_nothing_came():
    with held_back():
        pass
    assert signal.getsignal(signal.SIGINT) is raising


def test_many_of_one_are_one():
    came = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    with held_back():
        for _ in range(5):
            signal.raise_signal(signal.SIGINT)
        assert came == []
    assert came == [signal.SIGINT]
    signal.signal(signal.SIGINT, raising)


def test_each_kind_comes():
    came = []
    for number in interrupts.SIGNALS:
        signal.signal(number, lambda number, frame: came.append(number))
    with held_back():
        for number in interrupts.SIGNALS:
            signal.raise_signal(number)
    assert sorted(came) == sorted(interrupts.SIGNALS)
    for number in interrupts.SIGNALS:
        signal.signal(number, raising)


def test_one_that_raises_does_not_swallow_the_others():
    came = []
    signal.signal(signal.SIGTERM, lambda number, frame: came.append((number, frame is not None)))
    with pytest.raises(Came), held_back():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert came == [(signal.SIGTERM, True)]
    signal.signal(signal.SIGTERM, raising)


def test_asyncio_hears_of_a_signal_once():
    came = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, came.append, 1)
        with held_back():
            signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.05)
        loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(main())
    signal.signal(signal.SIGTERM, raising)
    assert came == [1]


def test_inner_ones_hold_until_the_outermost_ends():
    with pytest.raises(Came), held_back():
        with held_back():
            signal.raise_signal(signal.SIGINT)
        assert interrupts.STATE.waiting == [signal.SIGINT]
        with held_back():
            assert interrupts.STATE.waiting == [signal.SIGINT]


def test_a_wait_lets_in_what_comes():
    with held_back():
        with pytest.raises(Came), let_in():
            signal.raise_signal(signal.SIGINT)
        assert interrupts.STATE.closed


def test_a_wait_lets_in_what_has_waited():
    with held_back():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Came), let_in():
            raise AssertionError("the wait has begun")
        assert interrupts.STATE.closed
        assert interrupts.STATE.waiting == []


def test_a_wait_that_is_over_is_closed_again():
    with pytest.raises(Came), held_back():
        with let_in():
            pass
        signal.raise_signal(signal.SIGINT)
        assert interrupts.STATE.waiting == [signal.SIGINT]


def test_a_wait_outside_of_all_is_nothing():
    with let_in():
        assert signal.getsignal(signal.SIGINT) is raising
    with pytest.raises(Came):
        signal.raise_signal(signal.SIGINT)


def test_a_verb_inside_a_wait_is_whole_as_well():
    """A collection of garbage in a wait may close a box."""
    with held_back():
        with pytest.raises(Came), let_in(), held_back():
            signal.raise_signal(signal.SIGINT)
            assert interrupts.STATE.waiting == [signal.SIGINT]
            with let_in():
                raise AssertionError("it was let in before")
        assert interrupts.STATE.closed


def test_the_error_of_the_verb_is_the_context_of_what_came():
    with pytest.raises(Came) as caught, held_back():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("of the verb")
    assert isinstance(caught.value.__context__, ValueError)


def test_an_error_without_a_signal_goes_its_way():
    with pytest.raises(ValueError, match="plain"), held_back():
        raise ValueError("plain")


def test_a_decorated_function_gives_its_value_and_keeps_its_name():
    @whole
    def verb(a, *, b):
        """Words."""
        assert interrupts.STATE.closed
        return a + b

    assert verb(1, b=2) == 3
    assert (verb.__name__, verb.__doc__) == ("verb", "Words.")


def test_another_thread_changes_nothing():
    seen = []

    def other():
        with held_back(), let_in():
            seen.append((interrupts.STATE.depth, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(other,))
    thread.start()
    thread.join()
    assert seen == [(0, raising)]


def test_another_thread_does_not_open_what_the_main_one_has_closed():
    with held_back():
        thread = threading.Thread(target=lambda: let_in().__enter__())
        thread.start()
        thread.join()
        assert interrupts.STATE.closed


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_can_t_raise_is_left_alone(handler):
    signal.signal(signal.SIGTERM, handler)
    with held_back():
        assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_handler_that_was_set_inside_stays():
    def other(number, frame):
        raise AssertionError("never called")

    with held_back():
        signal.signal(signal.SIGTERM, other)
    assert signal.getsignal(signal.SIGTERM) is other
    signal.signal(signal.SIGTERM, raising)


def test_it_can_be_done_again_after_it_was_interrupted():
    for _ in range(3):
        with pytest.raises(Came), held_back():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is raising
