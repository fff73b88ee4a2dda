from __future__ import annotations

import pytest

from fff.stages import StageBuilder, State

CALLS = {
    "named": lambda builder: builder.named("walk"),
    "identified_by": lambda builder: builder.identified_by("h1"),
    "steps": lambda builder: builder.steps(lambda: iter(range(1, 4))),
    "state": lambda builder: builder.state(save=State, restore=lambda state: None),
    "lives": lambda builder: builder.lives(None),
}


@pytest.mark.parametrize("forgotten", CALLS)
def test_the_call_that_was_forgotten_is_named(forgotten):
    builder = StageBuilder()
    for name, call in CALLS.items():
        if name != forgotten:
            call(builder)
    with pytest.raises(ValueError, match=r"lacks \.") as caught:
        builder.build()
    assert [name for name in CALLS if f".{name}(" in str(caught.value)] == [forgotten]


def test_what_nothing_was_forgotten_of_is_built():
    builder = StageBuilder()
    for call in CALLS.values():
        call(builder)
    assert builder.build().run().step == 3
