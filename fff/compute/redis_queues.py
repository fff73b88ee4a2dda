"""Queues through a Redis server that may vanish: nothing is lost or doubled, and nobody waits for it.

Colmena's own `RedisQueues` takes no password, database or prefix, counts time limits in whole seconds, and
loses a message when the connection breaks while one is taken. Here each direction is one list. Its messages
are numbered, and the receiver confirms the last one that it has got in order. Until then the sender keeps
them, and sends all of them again

* when a command failed, since nobody knows how far it came;
* when the list is empty and the receiver still has not got them: then they were lost with the server's data,
  or with a connection.

The receiver takes the next number only: it drops what it has, and what comes after a gap. So whatever becomes
of the server and its data, each message arrives once and in order, and what is being calculated goes on.

Messages hold pickles, so each is sealed with a key that only this process and the task server have, which is
forked from it. What others put into the lists is dropped.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import math
import os
import queue
import secrets
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from colmena.models import SerializationMethod
from colmena.queue.base import QueueRole

from fff.compute.mailbox import STOP, Mailbox
from fff.compute.queues import Queues
from fff.compute.redis_access import KEYS_LAST_S, TROUBLE, Absence, connect
from fff.config.redis import password_from

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import redis

__all__ = ["RedisQueues"]

_log = logging.getLogger(__name__)

_TICK_S = 0.5
_UNHEARD_S = 2.0
_SEAL_SIZE = 32
_HEADER = struct.Struct("!QH")


class RedisQueues(Queues):
    """Queues between this process and a task server that is forked from it, through a Redis server.

    A server that is away is waited for: sending never blocks, receiving times out, and both go on when it is
    back. `absence_s` says how long that has lasted.

    Args:
        connect_to: Address of the server, and name of the variable with its password.
        prefix: What all keys begin with, used by nobody else; `close` leaves none of them.
        topics: Names of the topics; `default` is always there.
        serialization_method: How inputs and values are packed; only pickle can carry proxies.
        keep_inputs: Whether results bring their inputs back.

    Raises:
        ConfigError: If that variable holds nothing.
    """

    def __init__(
        self,
        connect_to: tuple[str, str | None],
        prefix: str,
        topics: Collection[str] = (),
        serialization_method: str | SerializationMethod = SerializationMethod.PICKLE,
        *,
        keep_inputs: bool = False,
    ) -> None:
        super().__init__(topics, serialization_method, keep_inputs=keep_inputs)
        password_from(connect_to[1])  # now, and not in a thread
        seal, steering_pid = secrets.token_bytes(_SEAL_SIZE), os.getpid()
        requests, results = f"{prefix}requests", f"{prefix}results"

        def is_alone() -> bool:
            # Where the kernel does not end a server whose steering process is gone.
            return os.getpid() != steering_pid and os.getppid() != steering_pid

        self._connect_to = connect_to
        self._keys = [key for name in (requests, results) for key in _keys(name)]
        self._client: _RedisEnd = _RedisEnd(connect_to, requests, results, self.topics, seal)
        self._server: _RedisEnd = _RedisEnd(connect_to, results, requests, {""}, seal, is_alone)
        self._role: QueueRole | None = None

    @property
    def absence(self) -> Absence:
        """How long the server has been away, as the end that this process uses has noticed."""
        end = self._server if self._role is QueueRole.SERVER else self._client
        return max(end.writing, end.reading, key=lambda absence: absence.seconds)

    def keep(self, role: QueueRole) -> None:
        """Give up the other role's end in this process; after a fork, call it on both sides."""
        super().keep(role)
        self._role = role

    def close(self, linger_s: float = 0.0) -> None:
        """Close what this process holds, and remove the keys; the task server leaves them to the other side.

        May be called twice. A server that is away is not waited for: its keys go when their time is over.
        """
        is_there = self.absence.seconds == 0
        super().close(linger_s)
        if self._role is QueueRole.SERVER or not is_there:
            return
        with contextlib.suppress(*TROUBLE), connect(*self._connect_to) as client:
            client.unlink(*self._keys)


def _keys(name: str) -> tuple[str, str, str]:
    """Return the list of a direction, the last number that was received from it, the sign of its sender."""
    return name, f"{name}:received", f"{name}:sender"


class _RedisEnd(Mailbox):
    """One end: puts into one list, takes from another."""

    def __init__(
        self,
        connect_to: tuple[str, str | None],
        sends_to: str,
        takes_from: str,
        topics: Collection[str],
        seal: bytes,
        is_alone: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(topics)
        self.writing, self.reading = Absence(), Absence()
        self._connect_to = connect_to
        self._sends_to, self._takes_from = sends_to, takes_from
        self._seal = seal
        self._is_alone = is_alone
        self._closed = threading.Event()
        # Of the thread that sends.
        self._unconfirmed: deque[tuple[int, bytes]] = deque()
        self._n_sent = 0
        self._in_doubt = False
        self._unheard = (0, math.inf)
        # Of the thread that receives.
        self._n_received = 0

    def give_up(self) -> None:
        """Nothing to do: each thread has a connection of its own, and none has started before the fork."""

    def _cut(self) -> None:
        self._closed.set()

    def _write(self) -> None:
        is_last = False
        with connect(*self._connect_to) as client:
            while not self._closed.is_set():
                fresh, stop = ([], False) if is_last else self._collect()
                is_last = is_last or stop
                try:
                    self._send(client, fresh)
                except TROUBLE as error:
                    self.writing.failed(error)
                    self._in_doubt = True
                    self._closed.wait(_TICK_S)
                else:
                    self.writing.answered()
                    if is_last:
                        return

    def _collect(self) -> tuple[list[bytes], bool]:
        """Return the messages to be sent next, and whether there will be no more; waits a moment for one."""
        fresh: list[bytes] = []
        with contextlib.suppress(queue.Empty):
            message = self._outgoing.get(timeout=_TICK_S)
            while message is not STOP:
                self._n_sent += 1
                frame = self._pack(self._n_sent, *message)
                fresh.append(frame)
                self._unconfirmed.append((self._n_sent, frame))
                message = self._outgoing.get_nowait()
            return fresh, True
        return fresh, False

    def _send(self, client: redis.Redis, fresh: list[bytes]) -> None:
        """Send what is new, or all that is not confirmed if there is doubt; learn what is confirmed."""
        sent = [frame for _, frame in self._unconfirmed] if self._in_doubt else fresh
        messages, received, sender = _keys(self._sends_to)
        commands = client.pipeline(transaction=False)
        if sent:
            commands.rpush(messages, *sent)
            commands.expire(messages, KEYS_LAST_S)
        # Also where there is nothing to say: a server that is full, or takes no writes, shows it then.
        commands.set(sender, 1, ex=KEYS_LAST_S)
        commands.get(received)
        commands.llen(messages)
        *_, confirmed, waiting = commands.execute()
        self._in_doubt = False
        while self._unconfirmed and self._unconfirmed[0][0] <= int(confirmed or 0):
            self._unconfirmed.popleft()
        self._look_for_losses(is_waiting=bool(sent or waiting))

    def _look_for_losses(self, *, is_waiting: bool) -> None:
        oldest = self._unconfirmed[0][0] if self._unconfirmed else 0
        now = time.monotonic()
        if is_waiting or oldest != self._unheard[0]:
            self._unheard = (oldest, now)
        elif oldest and now - self._unheard[1] > _UNHEARD_S:
            self._in_doubt = True

    def _read(self) -> None:
        messages, received, _ = _keys(self._takes_from)
        with connect(*self._connect_to) as client:
            while not self._closed.is_set() and not self._is_alone():
                try:
                    if (found := client.blpop([messages], timeout=_TICK_S)) is not None:
                        self._take(found[1])
                        client.set(received, self._n_received, ex=KEYS_LAST_S)
                except TROUBLE as error:
                    self.reading.failed(error)
                    self._closed.wait(_TICK_S)
                else:
                    self.reading.answered()
        self.open = False
        self._announce_end()

    def _pack(self, number: int, topic: str, data: bytes) -> bytes:
        name = topic.encode()
        body = _HEADER.pack(number, len(name)) + name + data
        return self._seal_of(self._sends_to, body) + body

    def _take(self, frame: bytes) -> None:
        """Deliver a message if it is the next one, and from the other end."""
        seal, body = frame[:_SEAL_SIZE], frame[_SEAL_SIZE:]
        if not hmac.compare_digest(seal, self._seal_of(self._takes_from, body)):
            _log.warning(
                "Somebody else put %d bytes into %s; they are dropped.", len(frame), self._takes_from
            )
            return
        number, length = _HEADER.unpack_from(body)
        if number == self._n_received + 1:
            start = _HEADER.size + length
            self._deliver(body[_HEADER.size : start].decode(), body[start:])
            self._n_received = number

    def _seal_of(self, direction: str, body: bytes) -> bytes:
        return hmac.digest(self._seal, direction.encode() + b"\0" + body, "sha256")
