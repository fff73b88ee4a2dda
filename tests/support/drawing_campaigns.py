"""Campaigns of all kinds, drawn by Hypothesis, and chance, which ends their tasks."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.support.playing_campaigns import EXTERNAL, Game, answer, frame

if TYPE_CHECKING:
    from fff.steering.records import Request

POOLS = st.one_of(
    st.sampled_from([1, 2, 3, 7]),
    st.builds(lambda gpu, cpu: {"gpu": gpu, "cpu": cpu}, st.integers(1, 2), st.integers(1, 4)),
)


@st.composite
def campaigns(draw, *, large: bool = False) -> dict[str, Any]:
    """Draw the options of a campaign.

    Args:
        draw: Hypothesis gives it.
        large: Whether kinds of task are in any pools, and some calculations take several slots.
    """
    options = draw(_campaigns())
    if not large:
        return options
    pools = {name: draw(st.integers(1, 6)) for name in ("a", "b", "c")}
    groups = {name: draw(st.sampled_from(sorted(pools))) for name in ("train", "score", "dynamics", "label")}
    pool_of = {kind: groups[group] for kind, group in _GROUPS.items()}
    used = {name: n for name, n in pools.items() if name in groups.values()}
    slots = st.integers(1, used[pool_of["calculate"]])
    options["calculation"]["nodes_by_size"] = [[0, 1], [40, draw(slots)], [80, draw(slots)]]
    sizes = tuple(draw(st.lists(st.sampled_from([3, 5, 9]), min_size=1, max_size=5)))
    return {**options, **EXTERNAL, "pools": used, "pool_of": pool_of, "sizes": sizes}


_GROUPS = {
    "train": "train",
    "train-baseline": "train",
    "refit": "train",
    "score": "score",
    "choose": "score",
    "evaluate": "score",
    "dynamics": "dynamics",
    "calculate": "label",
    "reference-dynamics": "label",
}


@st.composite
def _campaigns(draw) -> dict[str, Any]:
    retrain_every = draw(st.integers(1, 5))
    n_initial = draw(st.integers(2, 6))
    n_imported = draw(st.sampled_from([0, 0, 1, 2, 8]))
    n_trajectories = draw(st.integers(1, 5))
    chunk_size = draw(st.integers(1, 6))
    return {
        "pools": draw(POOLS),
        "n_starts": draw(st.integers(1, 3)),
        "n_imported": n_imported,
        "start_model": draw(st.booleans()),
        "test_files": draw(st.sampled_from([(), ("test/given.npz",)])),
        "seed": draw(st.integers(0, 3)),
        "start": {"n_labels": n_initial},
        "committee": {"size": draw(st.integers(2, 4))},
        "training": {
            "retrain_every": retrain_every,
            "start_from": draw(st.sampled_from(["initial", "previous"])),
        },
        "sampling": {
            "n_trajectories": n_trajectories,
            "n_parallel": draw(st.integers(1, n_trajectories)),
            "n_frames": draw(st.integers(0, 4)),
            "temperature_K": draw(st.sampled_from([[300.0], [300.0, 500.0]])),
        },
        "audit": {
            "fraction": draw(st.sampled_from([0.0, 0.5, 1.0])),
            "on_failure": draw(st.sampled_from(["restart", "last-valid"])),
        },
        "selection": {
            "chunk_size": chunk_size,
            "pool_size": draw(st.integers(chunk_size, 30)),
            "batch_size": draw(st.sampled_from([None, 1, 3])),
        },
        "calculation": {
            "max_ahead": draw(st.sampled_from([None, retrain_every, 3 * retrain_every])),
            "max_consecutive_failures": 10,
        },
        "queue": {"length": draw(st.integers(0, 3)), "tolerance": draw(st.integers(0, 2))},
        "test": {
            "n_frames": (n_frames := draw(st.sampled_from([0, 15]))),
            "random_baseline": n_frames > 0 and draw(st.booleans()),
        },
        "stop": {"max_labels": draw(st.integers(max(n_initial, retrain_every), 16))},
    }


class Chance:
    """Ends a random open request in a random way.

    Args:
        seed: Everything follows from it.
        rates: How often tasks fail at their first and at later tries, how often it is their block that they
            are lost with, how often runs end at once, audits fail, frames are ones that were met before, and
            frames get no score.
    """

    def __init__(self, seed: int, rates: dict[str, float]) -> None:
        self._random = random.Random(seed)
        self._rates = rates
        self._hashes = ["s-start-0"]

    def step(self, game: Game) -> None:
        """End one request."""
        request = self._random.choice(game.open)
        if self._happens("fails" if request.attempt == 1 else "fails again"):
            its_own = request.kind == "calculate" and self._happens("its own")
            lost = "lost" if self._happens("with its block") else "retry"
            game.fail(request, failure_class="structure" if its_own else lost)
            return
        change = getattr(self, f"_{request.kind.replace('-', '_')}", lambda values, request: None)
        values = answer(request, game.config)
        change(values, request)
        game.finish(request, **values)

    def _happens(self, what: str) -> bool:
        return self._random.random() < self._rates.get(what, 0.0)

    def _dynamics(self, values: dict[str, Any], request: Request) -> None:
        if self._happens("ends at once"):
            values |= {"reason": "force", "steps": 0, "last": frame(f"{request.id}:0"), "others": []}
        for described in [*values["others"], values["last"]]:
            if self._happens("met before"):
                described["hash"] = self._random.choice(self._hashes)
            self._hashes.append(described["hash"])

    def _score(self, values: dict[str, Any], request: Request) -> None:
        values["deviations"] = [None if self._happens("no score") else self._random.random()] * len(
            request.args["frames"]
        )

    def _choose(self, values: dict[str, Any], request: Request) -> None:
        self._random.shuffle(values["frames"])

    def _calculate(self, values: dict[str, Any], request: Request) -> None:
        if request.args["source"] == "audit" and self._happens("audit fails"):
            values |= {"energy_error": 0.3, "force_error": 2.0}
