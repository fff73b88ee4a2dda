"""How a stage is put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from fff.stages.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fff.stages.checkpoints import State
    from fff.stages.stage import Lifetime, NonFinite
    from fff.stages.tables import Growing

__all__ = ["StageBuilder"]

# What must have been said, by the call that says it.
_CALLS = {
    "name": "named(…)",
    "identity": "identified_by(…)",
    "steps": "steps(…)",
    "save": "state(save=…, restore=…)",
    "lifetime": "lives(…)",
}


class StageBuilder:
    """Puts a stage together, call by call, and names the call that was forgotten.

    Example:
        >>> StageBuilder().named("training").identified_by("h1").lives(None).build()
        Traceback (most recent call last):
        ...
        ValueError: The stage 'training' lacks .steps(…), .state(save=…, restore=…).
    """

    def __init__(self) -> None:
        self._said: dict[str, Any] = {}
        self._tables: list[Growing] = []

    def named(self, name: str) -> Self:
        """Say what messages call it."""
        return self._say(name=name)

    def identified_by(self, identity: str) -> Self:
        """Say which hash of settings, seed and data decides whether a checkpoint is this stage's."""
        return self._say(identity=identity)

    def steps(self, steps: Callable[[], Iterator[int | NonFinite]]) -> Self:
        """Say what makes the steps, from the present state on; see `Stage`."""
        return self._say(steps=steps)

    def state(self, *, save: Callable[[], State], restore: Callable[[State], None]) -> Self:
        """Say how the state is taken and given back."""
        return self._say(save=save, restore=restore)

    def lives(self, lifetime: Lifetime | None) -> Self:
        """Say where checkpoints go and what stops it; None for a stage that lives in memory alone."""
        return self._say(lifetime=lifetime)

    def writes(self, *tables: Growing) -> Self:
        """Add tables that it writes; a stage can do without."""
        self._tables.extend(tables)
        return self

    def build(self) -> Stage:
        """Return the stage.

        Raises:
            ValueError: If a call was forgotten.
        """
        missing = [f".{call}" for what, call in _CALLS.items() if what not in self._said]
        if missing:
            name = f"The stage {self._said['name']!r}" if "name" in self._said else "A stage"
            msg = f"{name} lacks {', '.join(missing)}."
            raise ValueError(msg)
        return Stage(**self._said, tables=tuple(self._tables))

    def _say(self, **said: Any) -> Self:
        self._said.update(said)
        return self
