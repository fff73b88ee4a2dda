"""A real Redis server with a password, for one test: it can be stopped, emptied, paused and started again."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["PATIENCE_S", "VARIABLE", "RedisServer", "started_redis"]

VARIABLE = "FFF_TEST_REDIS_PASSWORD"

PATIENCE_S = 60.0
"""How long anything may take on a machine that has other things to do, in seconds."""


class RedisServer:
    """A server on a free port of this machine. Its password stands in no command line and in no file.

    Args:
        folder: Where it keeps its data.
        keeps_data: Whether it has its data again when it is started again.
        tls: Files with its key and its certificate, where it speaks TLS.

    Attributes:
        url: Its address, database 3.
        password: What `VARIABLE` must hold.
        socket: A socket file by which it can be reached too.
    """

    def __init__(
        self, folder: Path, *, keeps_data: bool = False, tls: tuple[Path, Path] | None = None
    ) -> None:
        self.password = f"pw-{secrets.token_hex(12)}"
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/3"
        self.socket = folder / "redis.sock"
        self.connect_to = (self.url, VARIABLE)
        self._keeps_data = keeps_data
        self._tls = tls
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self.folder,
            # In that folder: the whole path may be too long for a socket.
            "unixsocket": self.socket.name,
            "save": '""',
            "appendonly": "yes" if self._keeps_data else "no",
            "requirepass": self.password,
        }
        if self._tls is not None:
            key, certificate = self._tls
            settings |= {"port": 0, "tls-port": self.port, "tls-auth-clients": "no"}
            settings |= {"tls-key-file": key, "tls-cert-file": certificate, "tls-ca-cert-file": certificate}
        self._process = subprocess.Popen(
            ["redis-server", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{key} {value}\n" for key, value in settings.items()))
        self._process.stdin.close()
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
            except redis.RedisError:
                assert time.monotonic() < end, "redis-server does not answer"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop it; with its data gone unless it keeps them."""
        if self._process is not None:
            self.go_on()
            self._process.terminate()
            self._process.wait(PATIENCE_S)
            self._process = None

    def pause(self) -> None:
        """Let it take connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        self._signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """Return a client of its own, for looks from outside."""
        trust = {"ssl": True, "ssl_ca_certs": str(self._tls[1])} if self._tls is not None else {}
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            db=3,
            password=self.password,
            socket_timeout=PATIENCE_S,
            retry=Retry(NoBackoff(), 0),
            **trust,
        )

    def key_names(self) -> set[str]:
        """Return all keys that are there."""
        with self.client() as client:
            return {key.decode() for key in client.scan_iter()}

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


def started_redis(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    keeps_data: bool = False,
    tls: tuple[Path, Path] | None = None,
) -> RedisServer:
    """Return a server that runs and whose password is in the environment; stop it afterwards.

    Skips the test where there is no redis-server.
    """
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on PATH")
    server = RedisServer(folder, keeps_data=keeps_data, tls=tls)
    monkeypatch.setenv(VARIABLE, server.password)
    server.start()
    return server
