"""The small demo of the tests of stages, for commands of the documentation that need a model."""

from tests.serve.conftest import small_config, small_demo, small_meds, workplace

__all__ = ["small_config", "small_demo", "small_meds", "workplace"]
