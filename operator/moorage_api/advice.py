"""What spec may say and yet pays for without use; told to whoever wrote it, never refused."""

from moorage_api.llmdeployment import Spec


def advice(spec: Spec) -> str:
    """In one sentence; empty where there is nothing to say. What another engine does with its accelerators it knows."""
    if spec.accelerator is None or spec.engine.image is not None:
        return ""
    has, used = spec.accelerator.count * spec.sharding.pods, spec.sharding.tensor_parallel
    if has <= used:
        return ""
    idle = f"{has - used} of the {has} accelerators of a replica {'does' if has - used == 1 else 'do'} nothing"
    ranks = "its one rank uses one" if used == 1 else f"its {used} ranks use one each"
    return f"{idle}, since {ranks}; raise spec.sharding.tensorParallel, or lower spec.accelerator.count."
