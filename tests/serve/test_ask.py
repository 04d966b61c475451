"""Questions as settings: tasks are read, and nothing asked is refused."""

import pytest

from sequela.errors import InputError
from sequela.serve.ask import AskSettings


def test_tasks_are_part_of_what_a_stage_made() -> None:
    asked = AskSettings(("death_5y",), patients=3).identity()
    assert [task["name"] for task in asked["tasks"]] == ["death_5y"]
    assert (asked["split"], asked["patients"]) == ("held_out", 3)


def test_nothing_asked_is_refused() -> None:
    with pytest.raises(InputError, match="name one or more tasks with `task`"):
        AskSettings().tasks()
