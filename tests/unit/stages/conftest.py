"""A toy that has everything a stage has: random numbers, an array, a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fff.stages import Lifetime, NonFinite, Stage, StageBuilder, State, Table

N_STEPS = 12


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


class Walk:
    """A random walk that notes where it is after every third step."""

    def __init__(
        self,
        *,
        dies_after: int = 0,
        breaks_at: int = 0,
        on_step: Callable[[Walk], None] = lambda walk: None,
    ) -> None:
        self.table = Table("walk.csv", {"step": "", "place": "Å"})
        self.places = np.zeros((2, 3))
        self.step = 0
        self.made: list[int] = []
        self.dies_after = dies_after
        self.breaks_at = breaks_at
        self.on_step = on_step
        self.random = np.random.default_rng(5)

    def steps(self) -> Iterator[int | NonFinite]:
        while self.step < N_STEPS:
            if self.step + 1 == self.breaks_at:
                yield NonFinite(self.step, {"loss": float("nan"), "labels": [{"force": float("inf")}, 3]})
                return
            self.places += self.random.normal(size=(2, 3))
            self.step += 1
            self.made.append(self.step)
            if self.step % 3 == 0:
                self.table.append(self.step, float(self.places[0, 0]))
            self.on_step(self)
            yield self.step
            if self.step == self.dies_after:
                raise KilledError

    def save(self) -> State:
        values = {"step": self.step, "random": self.random.bit_generator.state}
        return State({"places": self.places.T, "none": np.zeros(0)}, values)

    def restore(self, state: State) -> None:
        self.places = state.arrays["places"].T
        self.step = state.values["step"]
        self.random.bit_generator.state = state.values["random"]

    def stage(self, lifetime: Lifetime | None, identity: str = "walk-1") -> Stage:
        return (
            StageBuilder()
            .named("The walk")
            .identified_by(identity)
            .steps(self.steps)
            .state(save=self.save, restore=self.restore)
            .writes(self.table)
            .lives(lifetime)
            .build()
        )


@pytest.fixture
def walk() -> Callable[..., Walk]:
    return Walk


@pytest.fixture
def whole() -> Walk:
    """The walk that nothing interrupted."""
    made = Walk()
    made.stage(None).run()
    return made


@pytest.fixture
def every_step(tmp_path: Path) -> Lifetime:
    """A life with a checkpoint after each step."""
    return Lifetime(tmp_path / "walk", interval_s=0.0)


@pytest.fixture
def killed(every_step: Lifetime) -> Callable[..., Walk]:
    """Start the walk, kill it after that many steps, and return what is left of it."""

    def kill(after: int, *, lifetime: Lifetime = every_step, identity: str = "walk-1") -> Walk:
        walk = Walk(dies_after=after)
        with pytest.raises(KilledError):
            walk.stage(lifetime, identity).run()
        return walk

    return kill
