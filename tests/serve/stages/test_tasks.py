"""The catalog in Python."""

import sequela


def test_the_catalog() -> None:
    assert {task.name for task in sequela.tasks()} >= {"death_5y", "in_hospital_death", "remaining_stay"}
