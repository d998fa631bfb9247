# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Htdgm, whose one training is scored by all of its signals together and by each alone: what helps, and how much?"""

from typing import Any

from anomalib_htdgm import Htdgm
from anomalib_htdgm.models.htdgm.signals import Signal
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel


class ModelBySignal(HtdgmModel):
    """Scores by the one signal that :attr:`alone` names, in lower case; by all where it names none."""

    alone = ""

    @property
    def signals(self) -> list[Signal]:
        """What scores."""
        return [each for each in super().signals if self.alone in {"", type(each).__name__.lower()}]


def htdgm_by_signal(**arguments: Any) -> Htdgm:
    """Make Htdgm of its own arguments; the benchmark sets ``model.alone`` once it is trained, see ``tested_with``."""
    made = Htdgm(**arguments)
    made.model = ModelBySignal(made.model.settings, made.input_size)
    return made
