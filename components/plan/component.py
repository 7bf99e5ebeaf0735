"""KFP component plan: a thin shim; what it does is in capnet/tasks.py."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def plan(seeds: list, first_seed: int, further_seeds: list) -> None:
    """Refuse seeds that do not belong together, before anything is prepared.

    Args:
        seeds: All seeds, the first one first.
        first_seed: The one whose model is registered.
        further_seeds: All others, one turn of the loop each.
    """
    from capnet.tasks import require_turns, task

    with task({}):
        require_turns("further_seeds", further_seeds, seeds[1:])
        require_turns("seeds", seeds, [first_seed, *further_seeds])
