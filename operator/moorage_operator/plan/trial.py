"""One look at a rollout: what is looked at, and what it comes to before the clock is asked."""

from dataclasses import dataclass
from datetime import datetime

from moorage_api.status import RolloutStatus, WindowFigures
from moorage_operator.plan.divide import Course, Crew
from moorage_operator.plan.finding import Finding
from moorage_operator.plan.revisions import Revision
from moorage_operator.plan.situation import Situation
from moorage_operator.plan.steps import Stage


@dataclass(frozen=True)
class Trial:
    """A rollout from one revision to another."""

    found: Situation
    stable: Revision
    candidate: Revision
    crew: Crew
    """The candidate's replicas."""
    before: RolloutStatus
    """What was last written of it."""
    course: Course
    """How it goes on where nothing is in its way."""
    drains: bool
    """Whether replicas of the stable revision give way."""
    stages: tuple[Stage, ...]
    """None for a RollingUpdate."""

    @property
    def hastened(self) -> bool:
        """Whether holds and gates are skipped: a person said so, or the revision has served before."""
        return self.candidate.standing.steering in {"promote", "back"}

    @property
    def unjudged(self) -> bool:
        """Whether no gate is asked: nor where nobody asks for the model, since there is nothing to judge by."""
        return self.hastened or self.found.scale.proves

    @property
    def begun(self) -> datetime:
        """When the stage began; now, when it begins."""
        return self.before.step_since or self.found.now.replace(microsecond=0)


@dataclass(frozen=True)
class Beat:
    """What one look at a rollout comes to, before the clock."""

    said: Finding
    course: Course
    step: int
    """Which stage or, without stages, how many replicas of the candidate serve."""
    running: bool = False
    """Whether a further replica is awaited: the deadline's clock runs."""
    since: datetime | None = None
    """When that step began; None: it has yet to begin."""
    window: tuple[WindowFigures, ...] = ()
    """What gateways had counted by then."""
    until: datetime | None = None
    """When the stage has been held for long enough."""
    failed: Finding | None = None
    """What is wrong with the candidate."""
    promote: bool = False
    wakes: tuple[float, ...] = ()
    """Seconds after which time alone changes something."""
