"""KFP component outcome: a thin shim; what it does is in the log of the task."""

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def outcome(status: PipelineTaskFinalStatus) -> None:
    """Say whether the run ended well. Runs last, whatever happened before.

    Args:
        status: Given by KFP, of all other tasks together: it does not say which of them failed.
    """
    from capnet.tasks import say_outcome

    say_outcome(status.state, status.error_message)
