from __future__ import annotations

import resource
import sys

import numpy as np
import pytest

from fff.models.memory import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_memory_that_was_freed_is_used_again_without_new_pages():
    keep_freed_memory()

    def use() -> None:
        # Larger than what glibc maps anew by default, and several at a time.
        arrays = [np.ones(100_000) for _ in range(20)]
        del arrays

    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        use()
    pages = 20 * 20 * 800_000 / 4096
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 0.2 * pages
