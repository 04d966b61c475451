"""The objectives by name."""

from sequela.training.objectives.next_token import NextToken
from sequela.training.objectives.objective import ObjectiveFactory

OBJECTIVES: dict[str, ObjectiveFactory] = {NextToken.name: NextToken}
DEFAULT: ObjectiveFactory = NextToken
