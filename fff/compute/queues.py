"""What all queues share, and that of the embedded default: no server, between steering and task server.

Colmena's own `PipeQueues` writes to pipes from the calling thread: two threads at once break the stream, and
a full pipe blocks both sides for good. Here one socket pair, made before the fork, joins the processes, and
each side has one thread that writes and one that reads, so that

* sending never blocks and any number of threads may send and receive;
* a message of any size passes while the other side is busy: its reading thread takes it in;
* the death of the other side is seen at once (end of file), also in the middle of a message.

Waiting messages are held in memory without a bound; the policy bounds what is in flight.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from colmena.exceptions import KillSignalException
from colmena.models import FailureInformation, ResourceRequirements, Result, SerializationMethod
from colmena.queue.base import ColmenaQueues, QueueRole

from fff.base.errors import CampaignError
from fff.compute.mailbox import STOP, Mailbox

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["LocalQueues", "Queues", "shorten_failure"]

_KILL_SIGNAL = "null"
_HEADER = struct.Struct("!HQ")
_MAX_EXCEPTION = 500
_MAX_TRACEBACK = 3000


class Queues(ColmenaQueues):
    """Queues between this process and a task server that is forked from it, whatever carries the messages.

    Make them before the fork, and call `keep` on both sides after it (`start_server` does), so that each
    gives up the other's end. Threads start on first use, none before the fork.

    Differences from Colmena's queues: a task counts as active before it is sent, so that no result can be
    faster; a timed `get` on a lost connection waits its time and times out, an unlimited one raises; long
    failure messages are shortened; Colmena's own proxying is not offered (make proxies explicitly).

    Args:
        topics: Names of the topics; `default` is always there.
        serialization_method: How inputs and values are packed; only pickle can carry proxies.
        keep_inputs: Whether results bring their inputs back.

    Attributes:
        largest_message: Bytes of the largest request sent or result received through this object.
    """

    _client: Mailbox
    _server: Mailbox

    def __init__(
        self,
        topics: Collection[str] = (),
        serialization_method: str | SerializationMethod = SerializationMethod.PICKLE,
        *,
        keep_inputs: bool = False,
    ) -> None:
        super().__init__(topics, serialization_method, keep_inputs)
        self.largest_message = 0
        self._size_lock = threading.Lock()

    @property
    def connected(self) -> bool:
        """Whether the other side is there, as far as this one has noticed."""
        return self._client.open and self._server.open

    def keep(self, role: QueueRole) -> None:
        """Give up the other role's end in this process; after a fork, call it on both sides."""
        (self._server if role is QueueRole.CLIENT else self._client).give_up()

    def close(self, linger_s: float = 0.0) -> None:
        """Close what this process holds; what waits to be sent gets `linger_s` seconds to leave.

        May be called twice. Threads that wait in a `get` time out.
        """
        self._client.close(linger_s)
        self._server.close(linger_s)

    def send_inputs(
        self,
        *input_args: Any,
        method: str | None = None,
        input_kwargs: dict[str, Any] | None = None,
        keep_inputs: bool | None = None,
        resources: ResourceRequirements | dict[str, Any] | None = None,
        topic: str = "default",
        task_info: dict[str, Any] | None = None,
        max_retries: int = 0,
    ) -> str:
        """Send a task request and return its task id.

        Raises:
            ValueError: If the topic is unknown.
            CampaignError: If the task server is gone.
        """
        self._check_role(QueueRole.CLIENT, "send_inputs")
        if topic not in self.topics:
            msg = f"The queue knows no topic {topic!r}; it has {', '.join(sorted(self.topics))}."
            raise ValueError(msg)
        result = Result(
            (input_args, input_kwargs or {}),
            method=method,
            keep_inputs=self.keep_inputs if keep_inputs is None else keep_inputs,
            serialization_method=self.serialization_method,
            task_info=task_info,
            resources=resources or ResourceRequirements(),
            topic=topic,
            max_retries=max_retries,
        )
        result.time.serialize_inputs, _ = result.serialize()
        with self._active_lock:
            self._active_tasks.add(result.task_id)
            self._all_complete.clear()
        try:
            self._send_request(result.json(exclude_none=True), topic)  # type: ignore[arg-type]
        except BaseException:
            with self._active_lock:
                self._active_tasks.discard(result.task_id)
            raise
        return str(result.task_id)

    def send_result(self, result: Result) -> None:
        """Send a result to the steering process; of a failed task without inputs and with a short message."""
        shorten_failure(result)
        if not result.success:
            # Colmena sends the inputs of a lost task back, though nobody wants them.
            result.inputs = ((), {})
        super().send_result(result)

    def flush(self) -> None:
        """Drop what has arrived and was not taken."""
        self._client.drop()
        self._server.drop()

    def _send_request(self, message: str, topic: str) -> None:
        data = message.encode()
        self._note_size(data)
        if not self._client.put(topic, data):
            msg = "The task server is gone: nothing can be sent to it."
            raise CampaignError(msg, hint="See parsl/server.log in the run directory.")

    def _get_request(self, timeout: float | None = None) -> tuple[str, str]:
        try:
            topic, data = self._server.get("", timeout)
        except EOFError:
            # Nobody is left to send the signal.
            raise KillSignalException from None
        message = data.decode()
        if message == _KILL_SIGNAL:
            raise KillSignalException
        return topic, message

    def _send_result(self, message: str, topic: str) -> None:
        # A lost steering process is no error of the task; the server learns of it in `get`.
        self._server.put(topic, message.encode())

    def _get_result(self, topic: str, timeout: float | None = None) -> str:
        try:
            _, data = self._client.get(topic, timeout)
        except EOFError:
            msg = "The task server is gone: no result can come from it."
            raise CampaignError(msg, hint="See parsl/server.log in the run directory.") from None
        self._note_size(data)
        return data.decode()

    def _note_size(self, data: bytes) -> None:
        with self._size_lock:
            self.largest_message = max(self.largest_message, len(data))


class LocalQueues(Queues):
    """Queues without a server, over a socket pair; each side sees the other's death at once.

    Args:
        topics: Names of the topics; `default` is always there.
        serialization_method: How inputs and values are packed; only pickle can carry proxies.
        keep_inputs: Whether results bring their inputs back.
    """

    def __init__(
        self,
        topics: Collection[str] = (),
        serialization_method: str | SerializationMethod = SerializationMethod.PICKLE,
        *,
        keep_inputs: bool = False,
    ) -> None:
        super().__init__(topics, serialization_method, keep_inputs=keep_inputs)
        client, server = socket.socketpair()
        self._client = _End(client, self.topics)
        self._server = _End(server, {""})


def shorten_failure(result: Result) -> None:
    """Cut the exception and the traceback of a failed result to what a person reads: 3500 letters at most.

    The beginning and the end stay. An exception may print arrays, and a traceback through compiled models is
    endless; both would pass through the queues.
    """
    failure = result.failure_info
    if failure is not None:
        result.failure_info = FailureInformation(
            exception=_shorten(failure.exception, _MAX_EXCEPTION),
            traceback=None if failure.traceback is None else _shorten(failure.traceback, _MAX_TRACEBACK),
        )


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    mark = f" … {len(text) - limit} letters left out … "
    return text[: limit // 3] + mark + text[len(text) - 2 * limit // 3 :]


class _End(Mailbox):
    """One end of a socket pair: messages follow each other, each with its length and topic."""

    def __init__(self, connection: socket.socket, topics: Collection[str]) -> None:
        super().__init__(topics)
        self._socket = connection

    def give_up(self) -> None:
        """Close this process's copy only: no shutdown, which would reach the other process's copy too."""
        self._socket.close()

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _write(self) -> None:
        while (message := self._outgoing.get()) is not STOP:
            name, data = message[0].encode(), message[1]
            try:
                self._socket.sendall(_HEADER.pack(len(name), len(data)) + name + data)
            except OSError:
                # What the other side sent before it went may still be on its way: the reader sees the end.
                self.open = False
                return

    def _read(self) -> None:
        # Buffered: it returns less than asked for only at the end of the stream.
        with contextlib.suppress(OSError), self._socket.makefile("rb") as stream:
            while len(header := stream.read(_HEADER.size)) == _HEADER.size:
                name_length, length = _HEADER.unpack(header)
                name, data = stream.read(name_length), stream.read(length)
                if len(name) + len(data) < name_length + length:
                    break
                self._deliver(name.decode(), data)
        self.open = False
        self._announce_end()
