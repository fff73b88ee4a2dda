from __future__ import annotations

import builtins
import pickle

import pytest

from fff.base import errors
from fff.base.errors import FffError, ReferenceFailure

ERRORS = [getattr(errors, name) for name in errors.__all__]
FAILURES = [kind for kind in ERRORS if issubclass(kind, ReferenceFailure)]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_keeps_message_hint_and_context_through_pickle(kind):
    error = kind("It went wrong.", hint="Do this.", key="a.b", value=3)

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is kind
    assert str(copy) == "It went wrong."
    assert (copy.message, copy.hint, copy.context) == (
        "It went wrong.",
        "Do this.",
        {"key": "a.b", "value": 3},
    )


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if kind is not FffError])
def test_an_error_has_a_built_in_parent_of_a_meaning(kind):
    parents = [parent for parent in kind.__mro__ if parent.__module__ == builtins.__name__]

    assert issubclass(kind, FffError)
    assert set(parents) - {Exception, BaseException, object}


@pytest.mark.parametrize("kind", ERRORS)
def test_the_docstring_is_the_whole_tree(kind):
    assert kind.__name__ in errors.__doc__


def test_every_error_of_the_module_is_exported():
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, FffError)
    }

    assert defined == set(errors.__all__)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_says_whose_fault_it_is(kind):
    assert kind.failure_class in {"retry", "structure", "setup", "disk"}


def test_what_may_be_retried_is_what_is_not_the_structures_own():
    classes = {kind.__name__: kind.failure_class for kind in FAILURES}

    assert classes == {
        "NoSpaceError": "disk",
        "NotConvergedError": "structure",
        "ReferenceFailure": "structure",
        "ReferenceLostError": "retry",
        "ReferenceSetupError": "setup",
        "SlotsTakenError": "retry",
        "TimeLimitError": "retry",
    }
