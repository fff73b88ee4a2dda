from __future__ import annotations

import os
import threading
import time

import pytest

from fff.base.errors import NotConvergedError, ReferenceSetupError, TimeLimitError
from fff.reference.pipes import (
    failure_from_bytes,
    failure_to_bytes,
    read_message,
    write_message,
)


@pytest.fixture
def pipe():
    """A pipe's two ends, open."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_message_arrives_whole_whatever_its_size(pipe, size):
    read, write = pipe
    payload = os.urandom(size)
    writer = threading.Thread(target=write_message, args=(write, b"L", payload))
    writer.start()

    assert read_message(read, deadline=time.monotonic() + 20) == (b"L", payload)

    writer.join()


def test_a_closed_pipe_reads_as_none(pipe):
    read, write = pipe
    os.close(write)

    assert read_message(read) is None


@pytest.mark.parametrize(
    "part", [b"L", b"L" + (5).to_bytes(8, "little"), b"L" + (5).to_bytes(8, "little") + b"ab"]
)
def test_a_message_that_breaks_off_is_an_end_of_file(pipe, part):
    read, write = pipe
    os.write(write, part)
    os.close(write)

    with pytest.raises(EOFError):
        read_message(read)


def test_reading_gives_up_at_the_deadline(pipe):
    with pytest.raises(TimeoutError):
        read_message(pipe[0], deadline=time.monotonic() + 0.05)


def test_writing_gives_up_at_the_deadline(pipe):
    os.set_blocking(pipe[1], False)

    with pytest.raises(TimeoutError):
        write_message(pipe[1], b"A", bytes(1_000_000), deadline=time.monotonic() + 0.05)


def test_writing_to_nobody_is_a_broken_pipe(pipe):
    os.close(pipe[0])

    with pytest.raises(BrokenPipeError):
        write_message(pipe[1], b"A", b"")


@pytest.mark.parametrize("kind", [NotConvergedError, ReferenceSetupError, TimeLimitError])
def test_a_failure_travels_with_class_hint_and_context(kind):
    failure = failure_from_bytes(failure_to_bytes(kind("It failed.", hint="Do this.", key="a.b", value=3)))

    assert type(failure) is kind
    assert (failure.message, failure.hint, failure.context) == (
        "It failed.",
        "Do this.",
        {"key": "a.b", "value": 3},
    )
