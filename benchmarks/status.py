"""How long `fff --help` and `fff status` take, from the shell's point of view, on a log of many events.

    python benchmarks/status.py RUN_DIR [N_EVENTS] [REPEATS]

The log of a real campaign is repeated, with new ids and later times, until it has N_EVENTS events; the
other files are copied. Each command is started anew, so the start of the interpreter counts.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = [sys.executable, "-c", "from fff.cli.app import main; main()"]


def multiplied(run_dir: Path, folder: Path, n_events: int) -> Path:
    """Write a run directory whose log has `n_events` events, made from those of a real one."""
    lines = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    first, tasks = lines[0], lines[1:]
    began = first["times"]["started"]
    length_s = max(event["times"].get("ended", began) for event in tasks) - began
    with (folder / "events.jsonl").open("w") as file:
        file.write(json.dumps(first, separators=(",", ":")) + "\n")
        for seq in range(1, n_events):
            lap, index = divmod(seq - 1, len(tasks))
            event = dict(tasks[index], seq=seq)
            event["request"] = f"{event['request']}-{lap}"
            event["times"] = {name: value + lap * length_s for name, value in event["times"].items()}
            file.write(json.dumps(event, separators=(",", ":")) + "\n")
    shutil.copy(run_dir / "status.json", folder)
    return folder


def seconds(arguments: list[str], repeats: int) -> list[float]:
    """Return how long each of some starts of the program took."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([*PROGRAM, *arguments], check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - began)
    return took


def main() -> None:
    """Measure, and print median, least and largest."""
    run_dir = Path(sys.argv[1])
    n_events = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 15
    with tempfile.TemporaryDirectory() as folder:
        run = str(multiplied(run_dir, Path(folder), n_events))
        size_MB = (Path(run) / "events.jsonl").stat().st_size / 1e6
        print(f"{n_events} events, {size_MB:.1f} MB; {repeats} starts of each command")
        for arguments in (["--help"], ["status", run], ["status", run, "--json"]):
            took = seconds(arguments, repeats)
            name = "fff " + " ".join("RUN_DIR" if argument == run else argument for argument in arguments)
            print(
                f"{name:<28} median {statistics.median(took):.2f} s, "
                f"least {min(took):.2f} s, largest {max(took):.2f} s"
            )


if __name__ == "__main__":
    main()
