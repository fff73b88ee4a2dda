"""Section `redis`: a Redis server for the queue and the store, where the embedded ones do not reach."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Annotated, Literal, NoReturn
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pydantic import Field

from fff.base.errors import ConfigError
from fff.config.section import Section

__all__ = ["RedisSection", "password_from"]

_FORMS = "redis://host:port/database, rediss://… for TLS, or unix:///path/of/socket?db=database"
_OPTIONS = {"redis": (), "rediss": ("ssl_ca_certs",), "unix": ("db",)}
"""What may stand behind the `?`; all else would change how fff uses Redis, or is a password."""
_DEFAULT_PORT = 6379

Part = Literal["queues", "store"]


class RedisSection(Section):
    """A Redis server that carries messages, models and training sets; none is needed on one machine."""

    url: str | None = Field(
        None,
        min_length=1,
        description=(
            f"Where the server is: {_FORMS}; a user name may stand before the host, a password never. "
            "null: no server is needed."
        ),
    )
    password_variable: str | None = Field(
        None,
        description=(
            "Name, in capitals, of the environment variable that holds the password, here and where workers "
            "run; it must be given unless the server is on this machine."
        ),
    )
    use_for: Annotated[list[Part], Field(min_length=1)] = Field(
        default=["queues", "store"],
        description=(
            "What goes through the server: queues (messages between steering and task server), store (models "
            "and training sets for the workers), or both."
        ),
    )
    patience_s: float = Field(
        600.0,
        gt=0,
        le=1e6,
        description=(
            "How long the server may be away before the campaign stops, to be resumed when it is back."
        ),
    )

    @property
    def place(self) -> str:
        """The server for people: host, port and database, without the user; empty where there is none."""
        if self.url is None:
            return ""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return f"unix:{unquote(parts.path)}" + (f"?{parts.query}" if parts.query else "")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{parts.port or _DEFAULT_PORT}{parts.path.rstrip('/')}"

    @property
    def is_on_this_machine(self) -> bool:
        """Whether the server can only be reached from this machine; so it is where there is none."""
        if self.url is None:
            return True
        parts = urlsplit(self.url)
        if parts.scheme == "unix" or parts.hostname == "localhost":
            return True
        try:
            return ipaddress.ip_address(parts.hostname or "").is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Check the address, and that a server which others can reach has a password.

        Raises:
            ConfigError: If the address is none, holds a password, or needs one and no variable is named. The
                message never shows an address that may hold one.
        """
        if self.password_variable is not None:
            _check_name(self.password_variable)
        if self.url is not None:
            _check_url(self.url)
            if self.password_variable is None:
                self._check_openness()

    def _check_openness(self) -> None:
        assert self.url is not None  # noqa: S101 - for the type checker
        if "@" in urlsplit(self.url).netloc:
            msg = (
                "`redis.url` names a user, but `redis.password_variable` names no variable with the password."
            )
            hint = "Name the variable that holds the user's password, or leave the user out."
            raise ConfigError(msg, hint=hint, key="redis.password_variable", value=None)
        if not self.is_on_this_machine:
            msg = (
                f"`redis.url` is {self.place}, which other machines can reach, and "
                "`redis.password_variable` is null: whoever reaches it could run programs as you."
            )
            hint = (
                "Give the server a password (`requirepass`), export it as FFF_REDIS_PASSWORD, and set "
                "`redis.password_variable: FFF_REDIS_PASSWORD`."
            )
            raise ConfigError(msg, hint=hint, key="redis.password_variable", value=None)


def password_from(variable: str | None) -> str | None:
    """Return the password that an environment variable holds; None where none is named.

    Raises:
        ConfigError: If the variable is not set, or empty.
    """
    if variable is None:
        return None
    password = os.environ.get(variable)
    if not password:
        state = "empty" if password is not None else "not set"
        msg = f"`redis.password_variable` is {variable}, but that environment variable is {state}."
        hint = (
            f"Set it here and where workers run, for example `read -rs {variable}; export {variable}`; "
            "a batch script must export it too."
        )
        raise ConfigError(msg, hint=hint, key="redis.password_variable", value=variable)
    return password


def _check_name(variable: str) -> None:
    # Lower case is for passwords that were put here by mistake: no message may show one.
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
        msg = "`redis.password_variable` is no name of an environment variable: capitals, digits and `_`."
        hint = "Export the password as FFF_REDIS_PASSWORD, and give that name here."
        raise ConfigError(msg, hint=hint, key="redis.password_variable", value=None)


def _check_url(url: str) -> None:
    """Check an address.

    Raises:
        ConfigError: If it is none that can be used.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        # The error repeats a part of the address, which may be one of a password with a slash in it.
        _refuse(url, "its host or port cannot be read")
        raise AssertionError from error
    if parts.password is not None:
        msg = "`redis.url` holds a password, of which copies would lie in the run directory."
        hint = (
            "Take it out, export it as FFF_REDIS_PASSWORD, and set "
            "`redis.password_variable: FFF_REDIS_PASSWORD`."
        )
        raise ConfigError(msg, hint=hint, key="redis.url", value=None)
    if parts.scheme not in _OPTIONS:
        _refuse(url, f"it begins with {parts.scheme}://" if parts.scheme else "it names no scheme")
    if parts.fragment or set(parse_qs(parts.query, keep_blank_values=True)) - set(_OPTIONS[parts.scheme]):
        known = " and ".join(f"?{name}=" for name in _OPTIONS[parts.scheme]) or "nothing"
        _refuse(url, f"behind the address of a {parts.scheme}:// server may stand {known}")
    if parts.scheme == "unix":
        _check_socket(url, parts)
    elif not parts.hostname or port == 0:
        _refuse(url, "it names no host" if port != 0 else "its port is 0")
    elif not re.fullmatch(r"/?|/\d{1,9}", parts.path):
        _refuse(url, "behind the host may stand the number of a database, as /0, and nothing else")


def _check_socket(url: str, parts: SplitResult) -> None:
    if parts.hostname or not parts.path.startswith("/") or len(parts.path) == 1:
        _refuse(url, "it names no absolute path of a socket")
    databases = parse_qs(parts.query, keep_blank_values=True).get("db", ["0"])
    if not re.fullmatch(r"\d{1,9}", databases[-1]):
        _refuse(url, "its database is no number")


def _refuse(url: str, why: str) -> NoReturn:
    # Whatever stands before an @ may be a password that was put there by mistake.
    shown = f" ({url!r:.80})" if "@" not in url and "password" not in url.lower() else ""
    msg = f"`redis.url`{shown} is no address of a Redis server: {why}."
    raise ConfigError(msg, hint=f"Write {_FORMS}.", key="redis.url", value=None)
