"""How fff reaches a Redis server, and how it keeps account of one that is away."""

from __future__ import annotations

import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fff.config.redis import password_from

__all__ = ["KEYS_LAST_S", "TROUBLE", "Absence", "connect", "describe_trouble"]

KEYS_LAST_S = 3600
"""Lifetime of every key since it was last touched, in seconds: what a killed campaign leaves goes by itself.

Nothing is lost where a key goes too early: what is not there any more is sent and stored again.
"""

_ANSWER_LIMIT_S = 5.0

TROUBLE = (redis.RedisError, OSError, ValueError)
"""What a server raises that is away, full, starting, refuses the password, or answers nonsense."""


def connect(url: str, password_variable: str | None) -> redis.Redis:
    """Return a client, which connects on first use; threads may share it, processes may not.

    It never tries twice by itself: whoever uses it knows what has to be sent again. No command takes longer
    than five seconds, also where the server was stopped in the middle of one.

    Args:
        url: The server, without a password.
        password_variable: Name of the environment variable that holds it, or None.

    Raises:
        ConfigError: If the variable holds nothing.
    """
    # A connection through a socket file knows no such thing as keepalive.
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return redis.Redis.from_url(
        url,
        password=password_from(password_variable),
        socket_timeout=_ANSWER_LIMIT_S,
        socket_connect_timeout=_ANSWER_LIMIT_S,
        retry=Retry(NoBackoff(), 0),
        **keepalive,
    )


def describe_trouble(error: Exception) -> str:
    """Return what is wrong with a server, for people."""
    if isinstance(error, redis.AuthenticationError):
        return "it refuses user or password"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


class Absence:
    """Since when a server has not done what it was asked; one for each thread that asks.

    Attributes:
        why: What was wrong last.
    """

    def __init__(self) -> None:
        self.why = ""
        self._since: float | None = None

    def failed(self, error: Exception) -> None:
        """Note that the server did not do what it was asked."""
        self.why = describe_trouble(error)
        if self._since is None:
            self._since = time.monotonic()

    def answered(self) -> None:
        """Note that it did."""
        self._since = None

    @property
    def seconds(self) -> float:
        """How long it has been away; 0 when it is there."""
        since = self._since
        return 0.0 if since is None else max(time.monotonic() - since, 1e-3)
