# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A model that becomes the one that was saved, arguments and components, wherever its checkpoint is loaded.

Lightning 2.6 and anomalib 2.7 take arguments from a checkpoint in ``load_from_checkpoint`` alone, not for the
``ckpt_path`` of a trainer, and components without regard to what the caller has given.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_htdgm.version import __version__

from .checkpoint import MARK, VERSION, check_file, check_finite, named, written_by
from .components import adapt_weights, callbacks_of, check_held, describe_lost, detach, hide_given

if TYPE_CHECKING:
    Base = AnomalibModule
else:
    Base = object  # what derives from `AnomalibModule` directly is a model to anomalib, which lists it

logger = logging.getLogger(__name__)


class RestoringMixin(Base):
    """A model that becomes what a checkpoint holds, or says in one line why it does not."""

    resumes: ClassVar[bool] = False
    """Whether a training that was broken off can go on from a checkpoint, which then holds what that needs."""
    given: frozenset[str] = frozenset()
    """Names of the components that the caller has given; a checkpoint takes the place of the others only."""
    _written_by: str = ""

    @classmethod
    def checkpoint_name(cls) -> str:
        """Name of the model in checkpoints: the class of this package, whatever has been derived from it."""
        return next(each.__name__ for each in cls.__mro__ if AnomalibModule in each.__bases__)

    @classmethod
    def check_file(cls, path: str | Path) -> None:
        """Look at a checkpoint before Lightning loads it.

        Raises:
            CheckpointError: If it is not a whole one of this model, or holds Python objects.
        """
        check_file(path, cls, cls.checkpoint_name(), cls.checkpoint_safe_globals())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write into the checkpoint what it is."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[VERSION] = __version__
        if not self.resumes:
            checkpoint.pop("optimizer_states", None)  # twice as large as the model
        checkpoint[MARK] = {"model": self.checkpoint_name(), "lost": describe_lost(self, checkpoint)}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Load a model as anomalib does.

        Raises:
            CheckpointError: If the checkpoint is not a whole one of this model, or holds Python objects.
        """
        if isinstance(checkpoint_path, str | Path) and kwargs.get("weights_only", True):
            cls.check_file(checkpoint_path)
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except ValueError as error:
            raise named(error, checkpoint_path) from error

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over arguments and components that were saved, but for those components that the caller has given.

        Raises:
            CheckpointError: If one of them is lost, for a checkpoint cannot hold it, and the caller has given none.
            ValueError: If a training was to be resumed that cannot be.
        """
        if self._is_fitting and not self.resumes:
            name = type(self).__name__
            msg = f"ckpt_path: {name} does not resume trainings; fit without it, or validate, test and predict with it"
            raise ValueError(msg)
        self._written_by = written_by(checkpoint)
        before, input_size = callbacks_of(self), self.input_size
        with self._naming_checkpoint():
            check_held(checkpoint, self.given, type(self).__name__)
            super().on_load_checkpoint(hide_given(checkpoint, self.given))
            self._take_arguments(checkpoint.get("hyper_parameters", {}), input_size)
        adapt_weights(self, checkpoint)
        if self._running_trainer is not None:
            after = callbacks_of(self)
            detach(self._running_trainer, [each for each in before if not any(each is one for one in after)])
            datamodule = getattr(self._running_trainer, "datamodule", None)
            if isinstance(datamodule, AnomalibDataModule):  # it has been told to resize as the model before did
                datamodule.setup(self._running_trainer.state.fn)

    def _take_arguments(self, saved: Mapping[str, Any], input_size: tuple[int, int] | None) -> None:
        """Become what a model with the saved arguments, and for images of the restored size, would be."""
        own: dict[str, Any] = dict(self.hparams)
        arguments = {name: saved.get(name, value) for name, value in own.items()}
        if arguments == own and self.input_size == input_size:
            return
        defaults = inspect.signature(type(self)).parameters
        lost = [
            f"{name} {value!r} ({arguments[name]!r} there)"
            for name, value in own.items()
            if value != arguments[name] and (name not in defaults or value != defaults[name].default)
        ]
        if lost:
            logger.warning("The model has the checkpoint's arguments; not what was given for %s", ", ".join(lost))
        made = type(self)(**arguments, pre_processor=self.pre_processor or False, post_processor=False)
        self.model = made.model.to(self.device)
        self.hparams.update(arguments)
        logger.info("Arguments of the model are those of the checkpoint.")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load weights as PyTorch does, or say in one line why not.

        Raises:
            CheckpointError: If they are not weights of this model.
        """
        with self._naming_checkpoint():
            check_finite(self, state_dict)
            return super().load_state_dict(state_dict, strict=strict, assign=assign)

    @contextmanager
    def _naming_checkpoint(self) -> Iterator[None]:
        """Say which version wrote a checkpoint that is refused and, if a trainer reads it, its name."""
        try:
            yield
        except (RuntimeError, TypeError, ValueError) as error:
            path = None if self._running_trainer is None else self._running_trainer.ckpt_path
            raise named(error, path, self._written_by) from error

    @property
    def _running_trainer(self) -> Trainer | None:
        return None if self._trainer is None or self._trainer.state.stopped else self._trainer

    @property
    def _is_fitting(self) -> bool:
        return self._running_trainer is not None and self._running_trainer.state.fn == TrainerFn.FITTING
