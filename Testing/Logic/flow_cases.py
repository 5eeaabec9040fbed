"""The whole way through a study, as a front-end goes it."""

from MIMSegment.Logic.jobs import JobQueue
from MIMSegment.Logic.offers import Offers
from MIMSegment.Logic.store import PackageStore
from MIMSegment.Logic.workflow import Workflow
from waiting import wait_until

PATIENCE = 300.0  # seconds for a run on a busy computer


def start(gateway, folder, reviewer="") -> Workflow:
    """A workflow with a queue of its own and no packages but the bundled ones."""
    return Workflow(gateway, JobQueue(), Offers(PackageStore(folder / "packages")), reviewer)


def run(workflow, anyway=True) -> None:
    """Segment and wait for the review, or for the error."""
    workflow.run(anyway)

    def has_ended() -> bool:
        workflow.poll()
        return workflow.state.progress is None

    wait_until(has_ended, PATIENCE)


def rows(workflow) -> dict:
    """The rows of the review by name."""
    return {item.name: item for item in workflow.review.state.items}
