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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ParallelStrategy
from torch.optim import Optimizer

from anomalib_htdgm.data.appearance import Appearance
from anomalib_htdgm.data.augmentation import Augmentation, augmentation_of
from anomalib_htdgm.data.shots import RepeatedBatch, check_same_images, digest_images, read_anomalies, read_shots
from anomalib_htdgm.models.pre_processor import configure_pre_processor
from anomalib_htdgm.models.precision import Precision

from .advice import Advice
from .anomaly_map import Localization
from .calibration import CalibrationMixin
from .equalization import Equalization
from .networks import RECEPTIVE_FIELD
from .score import Vote
from .tiles import OverlappingTiler, whole_size
from .torch_model import HtdgmModel
from .training import Progress, Training, TrainingStep

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)

ITERATIONS_PER_LOG = 10
"""Iterations after which the progress bar shows where a training is; loggers have their own number, the trainer's."""
THRESHOLD = "threshold_chosen_by"
"""Key of a checkpoint for what its threshold was chosen by."""
APPEARANCES = "appearances_of_good_images"
"""Key of a checkpoint for what its training images look like as a whole."""
TRAINED_ON = "trained_on"
"""Key of a checkpoint for the digests of the training images, which tell nothing in a later validation."""
UNFINISHED = "unfinished_training"
"""Key of a checkpoint for what the training, broken off there, can be taken up with."""


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
        memory_bands (int): Bands of frequencies whose energies patches are compared by, beside their pixels; 0, 1, 2,
            4, 8, 16 or 32.
        memory_weight (int): How many times that distance counts beside each set of transformations.
        energy_cells (int): Most cells whose oriented energies are remembered: texture, however it is turned. The
            distance to them scores beside votes and memory, and makes the map with the latter; for parts that turn or
            carry fine marks, 4000 with ``memory_weight=1`` and ``coarsest_size=24``. 0 remembers none.
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
        coarsest_size: int = 12,
        scale_factor: float = 0.7,
        fit_scale_factor: bool = True,
        votes_from: int = 48,
        memory_patches: int = 2000,
        memory_bands: int = 16,
        memory_weight: int = 2,
        energy_cells: int = 0,
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
            memory_bands=memory_bands,
            memory_weight=memory_weight,
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
        self._steps: Iterator[TrainingStep] | None = None
        self._progress: Progress | None = None
        self._digests: dict[str, str] = {}
        self._training_data: DataLoader[ImageItem] | None = None
        self._augmentation: Augmentation | None = None
        self._validated, self._thresholds = [], {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark a checkpoint of a training that is not through as such, and add what it takes to go on.

        The optimisers' states, twice the size of the weights, are left out: a network's optimiser starts with it.
        """
        super().on_save_checkpoint(checkpoint)
        if "optimizer_states" in checkpoint:
            checkpoint["optimizer_states"] = []
        checkpoint[THRESHOLD] = self.threshold_chosen_by
        checkpoint[APPEARANCES] = [list(each) for each in self.inspection.good]
        checkpoint[TRAINED_ON] = list(self._digests.values())
        if self._progress is not None:
            checkpoint["state_dict"]["model.is_trained"] = torch.tensor(False)  # noqa: FBT003  # nor are there thresholds
            checkpoint[UNFINISHED] = {**vars(self._progress), "images": self._digests}
            del checkpoint["loops"]  # what is left to do becomes an epoch of its own

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
        unfinished = dict(checkpoint.get(UNFINISHED, {}))
        if self.is_resuming and not unfinished:
            logger.warning(
                "ckpt_path: that model is trained to the end, so nothing is trained now, and the training set is not "
                "looked at. To learn from it, fit without ckpt_path"
            )
        self._digests = unfinished.pop("images", {digest: digest for digest in checkpoint.get(TRAINED_ON, ())})
        self._progress = Progress(**unfinished) if unfinished else None

    def setup(self, stage: str) -> None:
        """Let an epoch be the whole training: one batch for each iteration.

        Raises:
            ValueError: If the trainer's strategy is one of several devices, or if it averages weights.
        """
        if stage == "fit":
            _check_trainer(self.trainer)
        super().setup(stage)
        if stage == "fit":
            self._training_data = self.take_over_training_data()
            self._progress = None

    def train_dataloader(self) -> RepeatedBatch:
        """Read the training images, once, and serve as many batches as iterations are left, the first with them.

        Only now, and not before Lightning has loaded a checkpoint to resume from, is it known which images.

        Raises:
            ValueError: If the images cannot be read, or are not those of the training that is resumed.
        """
        assert self._training_data is not None  # noqa: S101  # for the type checker: `setup` comes first
        self._shots = read_shots(self._training_data, self.k_shot, self.seed, RECEPTIVE_FIELD)
        self._known_defects = read_anomalies(self._training_data, RECEPTIVE_FIELD, self._shots)
        self._augmentation = augmentation_of(self._training_data, self.seed)
        self.inspection.good = vars(self._shots)["appearances"]  # of the images before they are resized
        digests = digest_images(self._shots)
        if self._progress is not None:
            check_same_images(self._digests, digests)
            done = f"{self._progress.finished} of {len(self.model.discriminators)}"
            logger.info("Resuming a training: %s networks are finished", done)
        self._digests = digests
        logger.info("Training on %d normal images: %s", self._shots.batch_size, ", ".join(digests))
        steps = self.training_schedule.count_steps(self.model, self._progress)
        return RepeatedBatch(self._shots, steps, self.input_size)

    def configure_optimizers(self) -> list[Optimizer]:
        """Make one optimiser for each network."""
        return self.training_schedule.configure_optimizers(self.model)

    def on_train_start(self) -> None:
        """Forget any training that was broken off."""
        self._steps = None

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Do one iteration of the training; the first keeps the images of its batch."""
        if self._steps is None:
            optimizers = self.optimizers()
            every = cast("list[Optimizer]", optimizers if isinstance(optimizers, list) else [optimizers])
            images = cast("torch.Tensor", batch.image)
            augment = None if self._augmentation is None else self._augment
            self._steps = self.training_schedule.run(self.model, images, self.seed, every, self._progress, augment)
        step = next(self._steps)
        self._progress = step.progress
        # To log takes as long as half an iteration.
        loggers = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        if any((batch_idx + 1) % every == 0 for every in (ITERATIONS_PER_LOG, loggers) if every):
            place = {"scale": step.scale, "set": step.set_index, "member": step.member, "iteration": step.iteration}
            # Without a batch size Lightning would search the batch for one.
            self.log_dict({**place, **step.losses}, prog_bar=True, batch_size=1)

    def _augment(self, number: int) -> torch.Tensor:
        """Augment the training images for an iteration, and pre-process them."""
        assert self._augmentation is not None and self._shots is not None  # noqa: S101, PT018  # for the type checker
        images = self._augmentation(cast("torch.Tensor", self._shots.image), number).to(self.device)
        transform = getattr(self.pre_processor, "transform", None)
        return transform(images) if transform else images

    def on_validation_start(self) -> None:
        """Finish the training before the first validation."""
        self._finish_training()
        super().on_validation_start()

    def on_validation_epoch_end(self) -> None:
        """Choose the threshold, and call the model complete, unless the training images are to choose it."""
        if self.choose_by_validation():
            self._progress = None

    def on_train_epoch_end(self) -> None:
        """Finish the training, and calibrate the scores, where no validation did: there is none, or it was cut off."""
        self._finish_training()
        if self._progress is not None and isinstance(self.post_processor, PostProcessor):
            self._calibrate(self.post_processor)
        self._progress = None

    def teardown(self, stage: str) -> None:
        """Let go of the training images, which an exported model must not carry."""
        super().teardown(stage)
        self._steps = self._training_data = self._shots = self._known_defects = self._augmentation = None

    def configure_callbacks(self) -> list[Callback]:
        """Add advice on how to go on after a training that is broken off."""
        return [*cast("list[Callback]", super().configure_callbacks()), Advice()]

    def _finish_training(self) -> None:
        """Do what is left to do: to end the finest scale and, if the trainer limits the batches, more."""
        with torch.inference_mode(False), torch.enable_grad():  # noqa: FBT003  # validation has neither
            missed = sum(1 for _ in self._steps or ())
        self._steps = None  # a generator, even an exhausted one, cannot be pickled
        if missed:
            logger.warning(
                "The trainer stopped %d iterations early; they were done all the same, since a pyramid that is not "
                "complete cannot score. Shorten the training by the model's argument `iterations`.",
                missed,
            )

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
