"""The commands of CI as nox sessions: `nox` runs both, `nox -s lint` one.

The Makefile holds the commands, once; its `.venv` is shared, since a second copy of torch buys nothing.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "tests"]


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style, types and layers."""
    session.run("make", "lint", external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Every test, slow ones too."""
    session.run("make", "test", external=True)
