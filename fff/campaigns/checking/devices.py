"""`python -m fff.campaigns.checking.devices`: list the accelerators that torch sees.

Answers with one line of JSON: for each device `id`, `name`, `uuid`, `memory_GB`.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Print the list."""
    sys.stdout.write("\n" + json.dumps(devices()) + "\n")


def devices() -> list[dict[str, Any]]:
    """Return the accelerators that torch sees."""
    import torch

    found = []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found.append(
            {
                "id": str(number),
                "name": properties.name,
                "uuid": str(getattr(properties, "uuid", "")),
                "memory_GB": round(properties.total_memory / 1e9, 1),
            }
        )
    return found


if __name__ == "__main__":
    main()
