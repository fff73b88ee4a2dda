"""`python -m fff.cli.probe`: make the reference method of the section on standard input, say what it is.

Answers with one line of JSON: `name` and `elements`, or `error` and `hint`.
"""

from __future__ import annotations

import json
import sys

from pydantic import TypeAdapter

from fff.base.errors import FffError
from fff.config import ReferenceSection


def main() -> None:
    """Read the section, make the method, answer."""
    from fff.reference import make_reference

    section = TypeAdapter(ReferenceSection).validate_json(sys.stdin.read())
    try:
        method = make_reference(section)
    except FffError as error:
        answer: dict[str, object] = {"error": error.message, "hint": error.hint}
    else:
        elements = None if method.elements is None else sorted(method.elements)
        answer = {"name": method.name, "elements": elements}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
