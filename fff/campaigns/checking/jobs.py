"""A probe of the batch system: would it take the jobs of the site."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from fff.campaigns.checking.findings import failed, fine, skipped
from fff.compute.batch import batch_scripts, try_script
from fff.compute.sites import make_site
from fff.config.site import BatchSite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fff.campaigns.checking.findings import Finding, Known

__all__ = ["try_jobs"]

_COMMANDS = {"slurm": ("sbatch", "squeue", "scancel"), "pbs": ("qsub", "qstat", "qdel")}


def try_jobs(known: Known) -> Iterator[Finding]:
    """Have the batch system judge the script of each kind of node; none is submitted."""
    site = known.config.site
    if not isinstance(site, BatchSite):
        return
    make_site(site).check_here(known.loaded.run_dir)
    scripts = batch_scripts(site, known.loaded.run_dir)
    if site.inside_allocation:
        yield fine("jobs", "the workers are steps of this job; nothing is submitted")
        return
    missing = [command for command in _COMMANDS[site.kind] if shutil.which(command) is None]
    if missing:
        hint = (
            "Run fff where jobs are submitted from, as a login node, or load the module of the batch system."
        )
        yield failed("jobs", f"there is no {', '.join(missing)} here", hint, missing=missing)
        return
    for name, script in scripts.items():
        yield _judge(site, name, script)


def _judge(site: BatchSite, name: str, script: str) -> Finding:
    if site.kind != "slurm":
        found = f"{name}: PBS judges no script without running it; see it with `fff run --dry-run`"
        return skipped("jobs", found)
    try:
        is_taken, words = try_script(script)
    except (OSError, subprocess.SubprocessError) as error:
        return failed("jobs", f"{name}: sbatch did not answer: {error}", "Try again later.", pool=name)
    words = words.removeprefix("sbatch: ").strip()
    if is_taken:
        return fine("jobs", f"{name}: Slurm would take it: {words}", pool=name)
    hint = f"Mend `site.nodes.{name}`; the script is shown by `fff run --dry-run`."
    return failed("jobs", f"{name}: Slurm refuses it: {words}", hint, pool=name)
