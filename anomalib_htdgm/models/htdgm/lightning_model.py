# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""HTDGM: A Hierarchical Transformation-Discriminating Generative Model for Few Shot Anomaly Detection.

A pyramid of small discriminators learns, from a few images and without pretrained weights, which transformation was
applied to a patch of a normal image. Patches whose transformation they cannot tell are anomalous.

Example:
    >>> from anomalib.data import MVTecAD
    >>> from anomalib.engine import Engine
    >>> from anomalib_htdgm import Htdgm

    >>> datamodule = MVTecAD(category="bottle")
    >>> model = Htdgm(k_shot=1)
    >>> engine = Engine()
    >>> engine.fit(model, datamodule=datamodule)  # doctest: +SKIP
    >>> engine.test(model, datamodule=datamodule)  # doctest: +SKIP

Paper:
    Shelly Sheynin, Sagie Benaim, Lior Wolf: A Hierarchical Transformation-Discriminating Generative Model for Few Shot
    Anomaly Detection. ICCV 2021.

See Also:
    :class:`anomalib_htdgm.models.htdgm.torch_model.HtdgmModel`: the PyTorch model.
    :class:`anomalib_htdgm.models.htdgm.training.Training`: its training.
"""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from anomalib_htdgm.data.appearance import Appearance
from anomalib_htdgm.data.augmentation import Augmentation, augmentation_of
from anomalib_htdgm.data.shots import OneBatch, digest_images, read_anomalies, read_shots
from anomalib_htdgm.models.pre_processor import configure_pre_processor
from anomalib_htdgm.models.precision import Precision
from anomalib_htdgm.models.single_epoch import forget_thresholds

from .calibration import CalibrationMixin
from .equalization import Equalization
from .networks import RECEPTIVE_FIELD
from .score import Vote
from .tiles import OverlappingTiler, whole_size
from .torch_model import HtdgmModel
from .training import Training, TrainingStep
from .votes import Localization

logger = logging.getLogger(__name__)

ITERATIONS_PER_LOG = 10
"""Iterations after which the progress bar shows losses; loggers have their own number, the trainer's."""
THRESHOLD = "threshold_chosen_by"
"""Key of a checkpoint for what its threshold was chosen by."""
APPEARANCES = "appearances_of_good_images"
"""Key of a checkpoint for what its training images look like as a whole."""
TRAINED_ON = "trained_on"
"""Key of a checkpoint for the digests of the training images, which tell nothing in a later validation."""


class Htdgm(CalibrationMixin, AnomalibModule):  # type: ignore[misc]  # anomalib's `to_onnx`, not Lightning's
    """HTDGM: few-shot anomaly detection without pretrained weights.

    It trains on normal images only. Validation images choose the threshold; if none of them is labelled as anomalous,
    up to a fifth of them may be all the same. Without them the training images do, each scored by what was learnt of
    the others, and labelled anomalies in the training set (see :class:`anomalib_htdgm.FewLabelledAnomalies`), which do
    nothing else. With one or two training images it is a guess; :attr:`threshold_chosen_by` tells.

    Args:
        k_shot (int): Number of training images, drawn by ``seed`` from the training set; all, if there are fewer.
        seed (int): Seed of the draw, of the weights and of the noise. On one CPU, with one number of threads, a seed
            gives one model, bit for bit; on a GPU not in float32.
        transformations (str | list[str]): What the discriminators tell apart: ``sharpness`` (3: as it is, enlarged,
            blurred) for defects, ``rotations`` (the paper's 4), ``symmetries`` (16) for whole images in colour,
            ``grayscale`` (42) for whole images without colour, ``full`` (the paper's 54), a list of such sets, each of
            which gets discriminators of its own, or a list of names such as ``["identity", "rotate90", "flip+right"]``.
        image_size (int): Side of the finest scale in pixels.
        coarsest_size (int): Side of the coarsest scale in pixels; not below the receptive field of 11. Published: 25.
        scale_factor (float): Ratio between a scale and the next finer one.
        fit_scale_factor (bool): Whether the ratio is adapted so that the coarsest scale has exactly ``coarsest_size``.
        votes_from (int): Side in pixels of the coarsest scale that has discriminators; 0 gives all scales some.
        memory_patches (int): Most patches of 5x5 pixels that are remembered at each scale of up to ``votes_from``
            pixels; the distance to them scores beside the votes. 0 remembers none.
        energy_cells (int): Most cells whose oriented energies are remembered: texture, however it is turned. The
            distance to them scores beside votes and patches. 0 remembers none.
        gist (bool): Whether what is where in a whole image, how its edges run, and its colour score beside the votes:
            for images of one subject among others, not for defects. It changes no map, and goes without ``tiles``.
        standardize (bool): Whether all images are brought to one brightness and contrast, so that a training image that
            is darker than others does as well.
        width (int): Channels of the hidden layers.
        double_width_every (int | None): Double the width after so many scales, as published (4). The default keeps one
            width, so that each scale starts from the weights of the scale before.
        iterations (int): Iterations of training per scale.
        pixels_per_iteration (int | None): Pixels of each canvas that an iteration sees, in random windows of 48x48 or
            fewer of a few training images, or tiles; so training takes about as long for many shots as for one.
            ``None`` shows all of all images in every iteration, as with generators in any case.
        discriminator_steps (int): Steps of the discriminator in an iteration.
        generator_steps (int): Steps of the generator in an iteration.
        learning_rate (float): Adam's rate.
        reconstruction_weight (float): Weight alpha of the generator's reconstruction loss.
        fake_weight (float): Weight of the discriminator's fake class; 0 trains no generators.
        members (int): Number of discriminators at each scale, each trained on its share of the images; what they say is
            averaged. With 2 or more, training images are scored by members that have not seen them. Time of training
            and of prediction grows with it.
        reestimate_statistics (bool): Whether a finished scale's batch-norm statistics become those of the real images.
        vote (str): ``log_probability`` or ``probability`` (the paper's) of the right transformation.
        patch_fraction (float): Fraction of patches, the most anomalous, that make the score: small for defects, 1 for
            whole images.
        localization (str): ``multi_scale``, or ``finest_scale`` for the paper's map.
        equalization (str): Images whose histograms are equalised: ``none``, ``train`` (the paper's way) or ``both``.
        precision (str): What the networks compute in: ``auto`` (bfloat16 where the device is faster at it),
            ``float32`` or ``bfloat16``, whatever the trainer's precision.
        tiles (int): Number of overlapping tiles along each side of an image, for defects that are lost when a large
            photograph is reduced to ``image_size``. Each tile is an image of its own to all that follows; the most
            anomalous one scores. Time of prediction grows with their number. 1 takes images as a whole.
        skip_unreadable (bool): Whether files that cannot be read are left out of a prediction, and of the validation
            after the training, with a warning for each; else the first is an error, as it always is in training, tests
            and validations of their own. Checkpoints do not hold it.
        pre_processor (PreProcessor | bool): Pre-processor; the default resizes to 256x256, with tiles so that each has
            256x256, and brings pixels to [-1, 1].
        post_processor (PostProcessor | bool): Post-processor.
        evaluator (Evaluator | bool): Evaluator; the default reports AUROC and F1 of images and pixels, and AUPRO.
        visualizer (Visualizer | bool): Visualizer.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        k_shot: int = 10,
        seed: int = 0,
        transformations: str | list[str] = "sharpness",
        image_size: int = 96,
        coarsest_size: int = 24,
        scale_factor: float = 0.7,
        fit_scale_factor: bool = True,
        votes_from: int = 48,
        memory_patches: int = 2000,
        energy_cells: int = 4000,
        gist: bool = False,
        standardize: bool = True,
        width: int = 16,
        double_width_every: int | None = None,
        iterations: int = 30,
        pixels_per_iteration: int | None = 4608,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        learning_rate: float = 5e-4,
        reconstruction_weight: float = 100.0,
        fake_weight: float = 0.0,
        reestimate_statistics: bool = True,
        members: int = 2,
        vote: Vote = "log_probability",
        patch_fraction: float = 0.01,
        localization: Localization = "multi_scale",
        equalization: Equalization = "none",
        precision: Precision = "auto",
        tiles: int = 1,
        skip_unreadable: bool = True,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        default_size = whole_size(tiles)
        super().__init__(
            skip_unreadable=skip_unreadable,
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        if pre_processor is True and tiles > 1:
            self.pre_processor = self.configure_pre_processor(default_size)
        self.automatic_optimization = False
        self.k_shot = k_shot
        self.seed = seed
        self.training_schedule = Training(
            iterations=iterations,
            pixels_per_iteration=pixels_per_iteration,
            discriminator_steps=discriminator_steps,
            generator_steps=generator_steps,
            learning_rate=learning_rate,
            reconstruction_weight=reconstruction_weight,
            fake_weight=fake_weight,
            reestimate_statistics=reestimate_statistics,
        )
        self.model: HtdgmModel = HtdgmModel(
            input_size=self.input_size or default_size,
            k_shot=k_shot,
            transformations=transformations,
            image_size=image_size,
            coarsest_size=coarsest_size,
            scale_factor=scale_factor,
            fit_scale_factor=fit_scale_factor,
            votes_from=votes_from,
            memory_patches=memory_patches,
            energy_cells=energy_cells,
            gist=gist,
            standardize=standardize,
            width=width,
            double_width_every=double_width_every,
            adversarial=self.training_schedule.fake_weight > 0,
            members=members,
            vote=vote,
            patch_fraction=patch_fraction,
            localization=localization,
            equalization=equalization,
            precision=precision,
            tiles=tiles,
        )
        self._digests: dict[str, str] = {}
        self._augmentation: Augmentation | None = None
        self._validated, self._thresholds = [], {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the threshold was chosen by, and what tells training images from others."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[THRESHOLD] = self.threshold_chosen_by
        checkpoint[APPEARANCES] = [list(each) for each in self.inspection.good]
        checkpoint[TRAINED_ON] = list(self._digests.values())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become the model that was saved, whatever arguments this one was made with."""
        super().on_load_checkpoint(checkpoint)
        arguments = self.arguments_of(checkpoint.get("hyper_parameters", {}))
        if arguments != dict(self.hparams) or self.input_size not in {None, self.model.input_size}:
            components: dict[str, Any] = {"pre_processor": self.pre_processor or False, "post_processor": False}
            model = self.rebuild(arguments, **components)
            self.k_shot, self.seed, self.training_schedule = model.k_shot, model.seed, model.training_schedule
            tiler, self.model = self.model.tiler, model.model.to(self.device)
            if tiler is not None and not isinstance(tiler, OverlappingTiler):
                self.model.tiler = tiler  # a callback has set it, before the checkpoint was read
            self.hparams.update(arguments)
            logger.info("Arguments of the model are those of the checkpoint.")
        self.threshold_chosen_by = checkpoint.get(THRESHOLD, "unknown")
        self.inspection.good = [Appearance(*each) for each in checkpoint.get(APPEARANCES, [])]
        self._digests = {digest: digest for digest in checkpoint.get(TRAINED_ON, ())}

    def setup(self, stage: str) -> None:
        """Prepare a stage, see :meth:`SingleEpochMixin.setup`.

        Raises:
            ValueError: If the trainer's strategy is one of several devices, or if it averages weights.
        """
        if stage == "fit":
            _check_trainer(self.trainer)
        super().setup(stage)

    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> OneBatch:
        """Read the training images, once: they are the only batch.

        Raises:
            ValueError: If the images cannot be read.
        """
        self._shots = read_shots(dataloader, self.k_shot, self.seed, RECEPTIVE_FIELD)
        self._known_defects = read_anomalies(dataloader, RECEPTIVE_FIELD, self._shots)
        self._augmentation = augmentation_of(dataloader, self.seed)
        self._digests = digest_images(self._shots)
        self.inspection.good = vars(self._shots)["appearances"]  # of the images before they are resized
        logger.info("Training on %d normal images: %s", self._shots.batch_size, ", ".join(self._digests))
        return OneBatch(self._shots)

    def configure_optimizers(self) -> list[Optimizer]:
        """Make one optimiser for each network."""
        return self.training_schedule.configure_optimizers(self.model)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Train on all images, which are one batch, and let them choose a threshold; a validation may choose another.

        Whatever breaks it off leaves a model that is not trained.
        """
        del batch_idx
        optimizers = self.optimizers()
        every = cast("list[Optimizer]", optimizers if isinstance(optimizers, list) else [optimizers])
        augment = None if self._augmentation is None else self._augment
        images = cast("torch.Tensor", batch.image)
        steps = self.training_schedule.run(self.model, images, self.seed, every, augment)
        forget_thresholds(self.post_processor)
        number, is_hidden = self.training_schedule.count_steps(self.model), self.trainer.progress_bar_callback is None
        # Lightning's own bar, on the same line, stands still meanwhile.
        with tqdm(steps, "Training", number, leave=False, file=sys.__stderr__, disable=is_hidden) as bar:
            for iteration, step in enumerate(bar, start=1):
                self._report(step, iteration, bar)
        self.choose_by_shots()

    def _report(self, step: TrainingStep, iteration: int, bar: "tqdm[TrainingStep]") -> None:
        """Say where a training is, and end it if the process is told to end."""
        if self.trainer.received_sigterm:
            raise SIGTERMException(128 + signal.SIGTERM)  # as shells have it; Lightning would exit with 0
        loggers_every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        is_shown = iteration % ITERATIONS_PER_LOG == 0
        is_logged = bool(loggers_every) and iteration % loggers_every == 0
        if not is_shown and not is_logged:  # to log takes as long as half an iteration
            return
        place = {"scale": step.scale, "set": step.set_index, "member": step.member, "iteration": step.iteration}
        values = place | {name: float(loss) for name, loss in step.losses.items()}
        if is_shown:
            bar.set_postfix(values, refresh=False)
        for each in self.loggers if is_logged else ():
            each.log_metrics(values, iteration)

    def _augment(self, number: int) -> torch.Tensor:
        """Augment the training images for an iteration, and pre-process them."""
        assert self._augmentation is not None and self._shots is not None  # noqa: S101, PT018  # for the type checker
        images = self._augmentation(cast("torch.Tensor", self._shots.image), number).to(self.device)
        transform = getattr(self.pre_processor, "transform", None)
        return transform(images) if transform else images

    def teardown(self, stage: str) -> None:
        """Let go of the training images, which an exported model must not carry."""
        super().teardown(stage)
        self._shots = self._known_defects = self._augmentation = None

    @contextmanager
    def exportable(self) -> Iterator[None]:
        """Refuse equalised test images, which kornia can only make in batches of one fixed size in a graph."""
        if self.model.equalization == "both":
            msg = "equalization: got 'both', which cannot be exported to ONNX or OpenVINO; allowed are 'none', 'train'"
            raise ValueError(msg)
        yield

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Make the default pre-processor, see :func:`~anomalib_htdgm.models.pre_processor.configure_pre_processor`."""
        return configure_pre_processor(image_size)


def _check_trainer(trainer: Trainer) -> None:
    """Refuse what networks cannot be trained with that take turns, each in steps of its own."""
    if isinstance(trainer.strategy, ParallelStrategy):
        given = type(trainer.strategy).__name__
        msg = f"strategy: got {given}; allowed are 'auto' and others of one device, which is what Htdgm trains on"
        raise ValueError(msg)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        if isinstance(callback, WeightAveraging):
            msg = f"callbacks: got {type(callback).__name__}; allowed are those that leave the weights as they are"
            raise ValueError(msg)
