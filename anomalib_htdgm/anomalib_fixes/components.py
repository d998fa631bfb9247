# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Pre-processor and post-processor of a checkpoint, and those that the caller has given, which win.

anomalib 2.7 lets a checkpoint take the place of both; it leaves a transform that it cannot save out, and what is
switched off in the checkpoint among the trainer's callbacks. It switches evaluator and visualizer off, too, where the
model that was saved had none. They are the caller's alone: what is reported and drawn is no part of what was learnt.
"""

import logging
from collections.abc import Collection, Sequence
from typing import Any, cast

from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

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


def describe_lost(model: AnomalibModule, checkpoint: dict[str, Any]) -> dict[str, str]:
    """Tell, by the components' names, what a checkpoint that anomalib has written does not hold of them."""
    components = {name: getattr(model, name) for name in HELD}
    kinds = {name: type(each) for name, each in components.items() if each is not None}
    lost = {name: kind.__name__ for name, kind in kinds.items() if kind not in HELD[name]}
    transform = getattr(components["pre_processor"], "transform", None)
    if transform is not None and not checkpoint.get("anomalib_pre_processor_config", {}).get("transform"):
        lost.setdefault("pre_processor", " ".join(str(transform).split()))
    return lost


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


def hide_given(checkpoint: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Make the checkpoint that anomalib restores components from: it says nothing of those that are given."""
    hidden = {f"anomalib_{name}_config" for name in given}
    others = {key: value for key, value in checkpoint.items() if key not in hidden}
    flags = checkpoint.get(ENABLED) or {}
    return others | {ENABLED: {name: flags.get(name, True) for name in HELD if name not in given}}


def adapt_weights(model: AnomalibModule, checkpoint: dict[str, Any]) -> None:
    """Let the checkpoint have the weights of the model's components alone; of evaluators it has none."""
    flags = checkpoint.get(ENABLED) or {}
    saved = {name for name in HELD if getattr(model, name) is not None and flags.get(name, True)}
    if isinstance(model.post_processor, PostProcessor) and "post_processor" not in saved:
        logger.warning("post_processor: the checkpoint has no thresholds for the given one; validate to find them")
    own = tuple(f"{name}." for name in COMPONENTS if name not in saved)
    state = {key: value for key, value in checkpoint["state_dict"].items() if not key.startswith(own)}
    checkpoint["state_dict"] = state | {key: value for key, value in model.state_dict().items() if key.startswith(own)}


def callbacks_of(model: AnomalibModule) -> Sequence[Callback]:
    """List a model's components, all of which but anybody's own modules are callbacks of its trainer."""
    return cast("Sequence[Callback]", model.configure_callbacks())


def detach(trainer: Trainer, components: Sequence[Callback]) -> None:
    """Take components from a trainer, which would have them work for its next model, too."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it elsewhere
    callbacks[:] = [each for each in callbacks if not any(each is one for one in components)]
