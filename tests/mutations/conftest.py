from __future__ import annotations

import pytest

from tests.mutations.images import Images, make


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Images:
    """The small campaign, run once, and what a kill at any of its events would have left."""
    return make(tmp_path_factory.mktemp("images"))
