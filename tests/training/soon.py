"""A run that is asked to end."""

from sequela.training.shutdown import Shutdown


class Soon(Shutdown):
    """Asked to end after some steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def __call__(self, done, total, **facts):
        self.steps -= 1
        self.requested = self.steps <= 0
