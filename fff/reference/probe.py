"""`python -m fff.reference.probe`: can the reference method treat these structures here?

Reads JSON from standard input: `section`, the config's section `reference`, and `structures`, each with
`numbers`, `positions` (Å), `cell` (Å), `pbc`. Answers with one line of JSON: `name`, or `error` and `hint`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ase import Atoms

from fff.base.errors import FffError


def main() -> None:
    """Read the question, make the method, answer."""
    answer = probe(json.load(sys.stdin))
    # Libraries may have printed something without ending the line.
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


def probe(question: dict[str, Any]) -> dict[str, Any]:
    """Return the name of the method, or what keeps it from treating the structures."""
    from fff.reference import make_reference

    try:
        method = make_reference(question["section"])
        for structure in question["structures"]:
            method.check(Atoms(**structure))
    except FffError as error:
        return {"error": error.message, "hint": error.hint}
    return {"name": method.name}


if __name__ == "__main__":
    main()
