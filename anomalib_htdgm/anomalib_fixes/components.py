# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Pre-processor and post-processor of a checkpoint, and those that the caller has given, which win.

anomalib lets a checkpoint take the place of both; it leaves a transform that it cannot save out, and what is switched
off in the checkpoint among the trainer's callbacks. It switches evaluator and visualizer off, too, where the model that
was saved had none. They are the caller's alone: what is reported and drawn is no part of what was learnt.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.spec import transform_to_spec
from torch import nn
from torchvision.transforms.v2 import Compose, Transform

from .checkpoint import MARK, CheckpointError
from .post_processor import ThresholdingPostProcessor
from .pre_processor import AntialiasedPreProcessor

logger = logging.getLogger(__name__)

COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")
HELD = {
    "pre_processor": (PreProcessor, AntialiasedPreProcessor),
    "post_processor": (PostProcessor, ThresholdingPostProcessor),
}
"""Types that a checkpoint can hold: a derived class would come back as the class that it is derived from."""
ENABLED = "anomalib_components_enabled"


def describe_lost(model: Any) -> dict[str, str]:  # noqa: ANN401
    """Tell, by the components' names, what a checkpoint cannot hold of them."""
    components = {name: getattr(model, name) for name in HELD}
    lost = {
        name: type(component).__name__
        for name, component in components.items()
        if component is not None and type(component) not in HELD[name]
    }
    transforms = _unknown_transforms(getattr(components["pre_processor"], "transform", None))
    return {"pre_processor": ", ".join(transforms)} | lost if transforms else lost


def _unknown_transforms(transform: Transform | None) -> list[str]:
    if isinstance(transform, Compose):
        return [name for each in transform.transforms for name in _unknown_transforms(each)]
    try:
        transform_to_spec(transform)
    except ValueError:
        return [type(transform).__name__]
    return []


def check_held(checkpoint: dict[str, Any], given: Collection[str], model_name: str) -> None:
    """Refuse a checkpoint that lacks a component whose name is not among those ``given`` by the caller.

    Raises:
        CheckpointError: If it lacks one.
    """
    for name, what in checkpoint.get(MARK, {}).get("lost", {}).items():
        if name not in given:
            msg = (
                f"{name}: the model was trained with one that a checkpoint cannot hold ({what}); give the same, "
                f"{model_name}({name}=...) or {model_name}.load_from_checkpoint(path, {name}=...)"
            )
            raise CheckpointError(msg)


def components_of(model: object) -> list[Any]:
    """List a model's components, and ``None`` for those that it lacks."""
    return [getattr(model, name) for name in COMPONENTS]


def detach(components: list[Any], trainer: Any) -> None:  # noqa: ANN401
    """Take components from a trainer, which would have them work for its next model, too."""
    trainer.callbacks = [each for each in trainer.callbacks if not any(each is one for one in components)]


@contextmanager
def restore_components(
    model: AnomalibModule, checkpoint: dict[str, Any], given: Collection[str]
) -> Iterator[dict[str, Any]]:
    """Keep the components that the caller has given while anomalib restores the others.

    Args:
        model (AnomalibModule): The model. On a trainer, its callbacks become those of the restored components.
        checkpoint (dict[str, Any]): Lightning's checkpoint, whose weights become those of the restored components.
        given (Collection[str]): Names of the components that the caller has given.

    Yields:
        dict[str, Any]: The checkpoint for anomalib to restore components from: without what is given.
    """
    before = components_of(model)
    flags: dict[str, bool] = checkpoint.get(ENABLED) or {}
    for name in HELD:
        # An earlier checkpoint may have switched off what this one has.
        if name not in given and flags.get(name, True) and getattr(model, name) is None:
            setattr(model, name, getattr(model, f"configure_{name}")())
    hidden = {f"anomalib_{name}_config" for name in given}
    others = {key: value for key, value in checkpoint.items() if key not in hidden}
    yield others | {ENABLED: {name: enabled for name, enabled in flags.items() if name in HELD and name not in given}}
    _adapt_weights(model, checkpoint, flags)
    trainer = getattr(model, "_trainer", None)
    changed = any(old is not new for old, new in zip(before, components_of(model), strict=True))
    if trainer is not None and changed:
        detach(before, trainer)
        trainer._callback_connector._attach_model_callbacks()  # noqa: SLF001  # Lightning has no public way to do this


def _adapt_weights(model: AnomalibModule, checkpoint: dict[str, Any], flags: dict[str, bool]) -> None:
    """Let the checkpoint have the weights of the model's components alone; of evaluators it has none."""
    state = checkpoint["state_dict"]
    for name in COMPONENTS:
        component = getattr(model, name)
        if component is not None and name in HELD and flags.get(name, True):
            continue
        own = component.state_dict() if isinstance(component, nn.Module) else {}
        state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        state |= {f"{name}.{key}": value for key, value in own.items()}
        if isinstance(component, PostProcessor):
            logger.warning("post_processor: the checkpoint has no thresholds for the given one; validate to find them")
    checkpoint["state_dict"] = state
