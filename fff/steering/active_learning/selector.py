"""Selector: which frames are scored, and which of them wait to be labelled, in which order."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from fff.base.draws import seed_for
from fff.steering.active_learning.state import PoolFrame, Score
from fff.steering.records import Request, Verdict

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from fff.data.events import Event
    from fff.steering.active_learning.state import State

__all__ = ["Selector"]

MAX_ATTEMPTS = 2
"""A chunk that fails is tried once more; then it costs only itself."""


class Selector:
    """Owns the pool of sampled frames and the waiting list made from it.

    Args:
        state: The shared state.
    """

    def __init__(self, state: State) -> None:
        self.state = state

    def add_frames(self, frames: Sequence[Mapping[str, Any]], request: Request) -> None:
        """Put the frames of a run into the pool. The oldest leave a full pool."""
        state = self.state
        # Ten frames for every run: the one loop of the policy that is long.
        known, hashes, pool, unscored = state.known, state.pool_hashes, state.pool, state.unscored
        segment, trajectory, model = request.id, request.args["trajectory"], request.models[0]
        for frame in frames:
            hash_ = frame["hash"]
            if hash_ in known or hash_ in hashes:
                continue
            frame_id = frame["id"]
            hashes.add(hash_)
            pool[frame_id] = PoolFrame(frame_id, hash_, segment, trajectory, model)
            unscored[frame_id] = 1
        excess = len(state.pool) - state.config.selection.pool_size
        if excess > 0:
            for frame_id in list(islice(state.pool, excess)):
                self.remove(frame_id)

    def remove(self, frame_id: str) -> None:
        """Take a frame out of the pool and of the waiting list."""
        state = self.state
        state.pool_hashes.discard(state.pool.pop(frame_id).hash)
        state.unscored.pop(frame_id, None)
        state.scored.pop(frame_id, None)
        state.rescoring.discard(frame_id)
        state.selected.pop(frame_id, None)

    def new_committee(self) -> None:
        """Have everything scored again by the new committee, the waiting list first."""
        state = self.state
        state.rescoring = set(state.selected)
        state.unscored = dict.fromkeys(state.pool, 1)
        state.scored = {}
        # Labels this committee was not trained on, done or on their way, count as chosen already.
        known_to = state.committee.n_labels if state.committee is not None else 0
        done = [label.frame for label in state.labels[known_to:] if label.frame]
        on_their_way = [request.args["frame"] for request in state.of_kind("calculate")]
        state.taken = [*done, *on_their_way]

    def wants_choice(self) -> bool:
        """Whether a new waiting list is to be chosen."""
        return self._is_needed() and self._choice_is_due()

    def wants_score(self) -> bool:
        """Whether frames wait to be scored that fill a chunk, or whose score others wait for."""
        return self._is_needed() and bool(self._chunk())

    def wants_any_score(self) -> bool:
        """Whether any frame waits to be scored."""
        return self._is_needed() and bool(self.state.unscored)

    def receive_scores(self, event: Event, request: Request) -> None:
        """Take in the deviations of a chunk; those of a replaced committee are discarded."""
        state = self.state
        if not self._is_current(request):
            return
        frames = [frame_id for frame_id in request.args["frames"] if frame_id in state.pool]
        if event.outcome == "failed":
            for frame_id in frames:
                if request.attempt < MAX_ATTEMPTS:
                    state.unscored[frame_id] = request.attempt + 1
                else:
                    self.remove(frame_id)
            return
        rows = {frame_id: row for row, frame_id in enumerate(request.args["frames"])}
        for frame_id in frames:
            deviation = event.values["deviations"][rows[frame_id]]
            state.rescoring.discard(frame_id)
            if deviation is None:
                self.remove(frame_id)
                continue
            state.scored[frame_id] = Score(request.id, rows[frame_id], deviation)
            state.new_scores = True

    def receive_choice(self, event: Event, request: Request) -> None:
        """Take in the new waiting list; what it no longer names has left it."""
        state = self.state
        if not self._is_current(request):
            return
        if event.outcome == "failed":
            failures = state.consecutive_failures["choose"] = state.consecutive_failures["choose"] + 1
            if failures >= state.config.calculation.max_consecutive_failures:
                why = event.values.get("message", "unknown")
                state.verdict = Verdict("failed", f"Choosing frames failed {failures} times in a row: {why}")
            # Due again: what it was to be made from has not been considered.
            state.new_scores = True
            return
        state.consecutive_failures["choose"] = 0
        state.chosen_round = request.args["round"]
        order = [frame_id for frame_id in event.values["frames"] if frame_id in state.scored]
        state.selected = {frame_id: state.scored[frame_id] for frame_id in order}

    def _is_needed(self) -> bool:
        return self.state.committee is not None and not self.state.budget_taken

    def _is_current(self, request: Request) -> bool:
        return self.state.committee is not None and request.args["round"] == self.state.committee.round

    def _choice_is_due(self) -> bool:
        state = self.state
        if not state.new_scores or not state.scored or state.running("choose"):
            return False
        if state.committee is not None and state.chosen_round != state.committee.round:
            return not state.rescoring
        return len(state.selected) <= state.config.batch_size // 2

    def _chunk(self) -> list[str]:
        """Return the next frames to score: a full chunk, or fewer when waiting for more would idle."""
        state = self.state
        size = state.config.selection.chunk_size
        if state.rescoring:
            waiting = _first(state.unscored, size, among=state.rescoring)
            if waiting:
                return waiting
        if len(state.unscored) < size and (
            state.selected or state.running("choose") or state.running("score")
        ):
            return []
        return _first(state.unscored, size)

    def take_score(self) -> Request:
        """Return the next chunk to be scored: a full one if there is one."""
        state, committee = self.state, self.state.committee
        if committee is None:
            msg = "There is no committee to score with."
            raise RuntimeError(msg)
        frames = self._chunk() or _first(state.unscored, state.config.selection.chunk_size)
        attempt = state.unscored[frames[0]]
        for frame_id in frames:
            del state.unscored[frame_id]
        state.n_scores += 1
        return Request(
            id=f"score-r{committee.round:03d}-{state.n_scores:05d}",
            kind="score",
            agent="Selector",
            pool=state.pool_of["score"],
            args={"round": committee.round, "frames": frames},
            models=(committee.key,),
            attempt=attempt,
        )

    def take_choice(self) -> Request:
        """Return the choice of a new waiting list."""
        state, committee = self.state, self.state.committee
        if committee is None:
            msg = "There is no committee to choose with."
            raise RuntimeError(msg)
        state.n_choices += 1
        state.new_scores = False
        candidates = {frame_id: [score.request, score.row] for frame_id, score in state.scored.items()}
        return Request(
            id=f"choose-r{committee.round:03d}-{state.n_choices:05d}",
            kind="choose",
            agent="Selector",
            pool=state.pool_of["choose"],
            args={
                "round": committee.round,
                "candidates": candidates,
                "taken": list(state.taken),
                "n": state.config.batch_size,
                "seed": seed_for(state.seed, "choose", committee.round, state.n_choices),
            },
            models=(committee.key,),
        )


def _first(attempts: Mapping[str, int], n: int, *, among: Container[str] | None = None) -> list[str]:
    """Return the first `n` frames at the same attempt as the first of them: a bad chunk stays by itself."""
    frames = (frame_id for frame_id in attempts if among is None or frame_id in among)
    first = next(frames, None)
    if first is None:
        return []
    alike = (frame_id for frame_id in frames if attempts[frame_id] == attempts[first])
    return [first, *islice(alike, n - 1)]
