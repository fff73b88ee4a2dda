"""Sampler: which trajectory runs next, how long, and where it goes on."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from fff.base.draws import choice, integer, seed_for
from fff.steering.active_learning.state import Audit, Run
from fff.steering.records import Request, Verdict

if TYPE_CHECKING:
    from fff.data.events import Event
    from fff.selection import AuditErrors
    from fff.steering.active_learning.selector import Selector
    from fff.steering.active_learning.state import State

__all__ = ["Sampler"]

RECENT_RUNS = 20
"""Audits that the run length is adapted to."""

BARREN_RUNS_PER_TRAJECTORY = 20
"""Runs in a row, per trajectory, that may give nothing at all before the campaign stops."""


class Sampler:
    """Owns the trajectories.

    Args:
        state: The shared state.
        selector: Takes the frames of a run that are not audited.
    """

    def __init__(self, state: State, selector: Selector) -> None:
        self.state = state
        self._selector = selector

    def wants_slot(self) -> bool:
        """Whether a trajectory could run now, and its frames could still be labelled."""
        state = self.state
        return (
            bool(state.idle)
            and state.sampling_model is not None
            and not state.budget_taken
            and state.running("dynamics") < state.config.sampling.n_parallel
        )

    def take(self) -> Request:
        """Return a run of a random idle trajectory."""
        state = self.state
        drawn = integer(len(state.idle), state.seed, "trajectory", state.n_runs)
        # The last takes the place of the one drawn: no list of a thousand is copied for every run.
        state.idle[drawn], state.idle[-1] = state.idle[-1], state.idle[drawn]
        index = state.idle.pop()
        state.n_runs += 1
        trajectory = state.trajectories[index]
        trajectory.status = "running"
        run = trajectory.runs
        trajectory.runs += 1
        temperatures = state.config.sampling.temperature_K
        committee = () if state.committee is None else (state.committee.key,)
        return Request(
            id=f"dynamics-t{index:03d}-r{run:04d}",
            kind="dynamics",
            agent="Sampler",
            pool=state.pool_of["dynamics"],
            args={
                "trajectory": index,
                "run": run,
                "frame": trajectory.frame,
                "n_steps": self.run_length(),
                "temperature_K": choice(temperatures, state.seed, "temperature", index, run),
                "seed": seed_for(state.seed, "dynamics", index, run),
                "round": state.sampling_round,
            },
            models=(str(state.sampling_model), *committee),
        )

    def run_length(self) -> int:
        """Return the steps of the next run: tolerance over the median error per step of recent audits."""
        sampling = self.state.config.sampling
        recent = self.state.recent_runs
        if not recent:
            return sampling.n_steps
        per_step = statistics.median(run.energy_error / run.steps for run in recent)
        tolerance = self.state.config.audit.energy_tolerance_eV_per_atom
        if per_step * sampling.max_steps <= tolerance:
            return sampling.max_steps
        return max(sampling.min_steps, int(tolerance / per_step))

    def receive(self, event: Event, request: Request) -> None:
        """Take in the end of a run: its last frame is audited, the others wait to be scored."""
        state = self.state
        index = request.args["trajectory"]
        trajectory = state.trajectories[index]
        if event.outcome == "failed":
            self._restart(index)
            self._count_barren(event.values.get("message", "unknown"))
            return
        values = event.values
        last = values["last"]
        self._selector.add_frames(values["others"], request)
        if values["steps"] == 0 or last["hash"] in state.known:
            # Nothing was learnt about the run: the frame is one that the reference already knows.
            self._restart(index)
            self._count_barren(f"they end at once ({values['reason']})")
            return
        trajectory.status = "waiting"
        state.audits.append(
            Audit(
                frame=last["id"],
                hash=last["hash"],
                trajectory=index,
                run=request.args["run"],
                steps=values["steps"],
                model=request.models[0],
                round=request.args["round"],
                deviation=last.get("deviation"),
            )
        )

    def audited(self, index: int, frame: str, steps: int, errors: AuditErrors | None) -> None:
        """Send a trajectory on or back after its audit.

        Args:
            index: The trajectory.
            frame: The audited frame.
            steps: Steps of the audited run.
            errors: Those of the model that drove the run, or None when the reference failed there.
        """
        audit = self.state.config.audit
        trajectory = self.state.trajectories[index]
        if errors is not None:
            self.state.recent_runs = [*self.state.recent_runs, Run(errors.energy_eV_per_atom, steps)][
                -RECENT_RUNS:
            ]
        passed = errors is not None and errors.pass_audit(
            audit.energy_tolerance_eV_per_atom, audit.force_tolerance_eV_per_A
        )
        self.state.n_audits += 1
        if not passed:
            self._restart(index)
            return
        trajectory.frame = frame
        trajectory.passed += 1
        self.state.n_audits_passed += 1
        self.state.most_audits_in_a_row = max(self.state.most_audits_in_a_row, trajectory.passed)
        self._rest(index)

    def _restart(self, index: int) -> None:
        self._rest(index)
        if self.state.config.audit.on_failure == "restart":
            trajectory = self.state.trajectories[index]
            trajectory.frame = trajectory.start
            trajectory.passed = 0

    def _rest(self, index: int) -> None:
        self.state.trajectories[index].status = "idle"
        self.state.idle.append(index)

    def _count_barren(self, why: str) -> None:
        """Count a run that led to nothing; a label it leads to after all begins the count anew."""
        state = self.state
        if state.training is not None or state.running("calculate") or state.selected:
            # A newer model, or labels that it needs, are on their way.
            return
        state.barren_runs += 1
        if state.barren_runs >= BARREN_RUNS_PER_TRAJECTORY * len(state.trajectories):
            state.verdict = Verdict(
                "failed", f"{state.barren_runs} runs of dynamics in a row led to no label: {why}"
            )
