"""The vocabulary: what a run is made of. One set of models is the form in the UI, the command line and the cache's key.

Only declarations live here, no computing: the values of these fields enter the keys of the stages that use them, so this
file may grow without making stored results stale.
"""

from __future__ import annotations

import difflib
import itertools
import math
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from featcx_core.errors import InputError


class Spec(BaseModel):
    """A frozen set of named settings; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _lists_of_one(cls, values: Any) -> Any:
        """One value where a field holds any number of them is a list of one."""
        if not isinstance(values, dict):
            return values
        several = {name for name, field in cls.model_fields.items() if get_args(field.annotation)[1:] == (...,)}
        return {
            name: (value,) if name in several and isinstance(value, int | float | str) else value
            for name, value in values.items()
        }


class ScheduleSpec(Spec):
    """How long and how fast a net is trained. Budgets count samples drawn, so a preset costs the same on any data."""

    draws: int = Field(30_000, ge=1, description="samples drawn in all, with augmentation")
    batch: int = Field(128, ge=2, description="samples a step")
    lr: float = Field(1e-3, gt=0, description="first learning rate (shape log) or highest (shape trapezoid)")
    lr_end: float = Field(1e-5, gt=0, description="last learning rate")
    shape: Literal["log", "trapezoid"] = Field(
        "log", description="log: log-spaced from lr to lr_end; trapezoid: a tenth up, hold, the last half linearly down"
    )
    optimiser: Literal["adam", "muon"] = Field(
        "adam", description="muon: orthogonalised steps for convolutions, Adam for the rest; weight_decay must be 0"
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay (AdamW)")

    @model_validator(mode="after")
    def _no_decay_with_muon(self) -> ScheduleSpec:
        if self.optimiser == "muon" and self.weight_decay:
            raise ValueError("the optimiser muon takes no weight_decay; set it to 0 or choose adam")
        return self


class DatasetSpec(Spec):
    """Where images come from and how they are split and augmented."""

    source: str = Field("mnist", description="digits, mnist, cifar10, parquet:DIR, folder:DIR or npz:FILE")
    validation: float = Field(0.1, gt=0, lt=0.5, description="share of the training images that no net sees")
    split_seed: int = Field(0, ge=0, description="seed of the split into validation and pool")
    test: float | None = Field(
        None, gt=0, lt=0.9, description="share held out for testing where there is no test split; empty: a fifth"
    )
    image: str | None = Field(None, description="Parquet column of the images; empty: as the file tells")
    label: str | None = Field(None, description="Parquet column of the labels; empty: as the file tells")
    size: int | None = Field(None, ge=8, le=512, description="resize folder and Parquet images to size × size pixels")
    fit: Literal["crop", "pad", "stretch"] = Field(
        "crop", description="how oblong images become square: the middle cut out, black beside, or stretched"
    )
    crop: int | None = Field(
        None, ge=0, le=32, description="random-crop padding in pixels; empty: an eighth of the side"
    )
    flip: bool | None = Field(None, description="random horizontal flips; empty: as suits the source (off for digits)")


class Pixels(Spec):
    """Mean and deviation of pixels in [0, 1] that a net was trained on, a value a channel."""

    mean: tuple[float, ...] = Field(min_length=1, description="taken off")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, description="divided by")


Layout = Literal["chw", "hwc", "td", "dt", "d"]
Preprocess = Literal["auto", "pool", "none", "imagenet"] | Pixels


class TargetSpec(Spec):
    """The network whose feature is analysed."""

    net: str = Field(
        "resnet8",
        description="resnet8|14|20|32|44, resnet18|34, vgg16_bn, torchvision:NAME, timm:NAME or module:function",
    )
    layer: str | None = Field(
        None,
        description="module whose output is the feature, NAME#2 for its second call; empty: what stands before the head",
    )
    layout: Layout | None = Field(
        None,
        description="of the layer's output: maps with channels first or last, tokens × channels, channels × tokens, a "
        "vector; empty: recognised",
    )
    preprocess: Preprocess = Field(
        "auto",
        description="between pixels in [0, 1] and the net: pool, none, imagenet or {mean, std}; auto: the library's own for "
        "weights of timm's and torchvision's nets, else pool",
    )
    allow_chance: bool = Field(False, description="analyse a net with a checkpoint though its accuracy is at chance")
    pre_relu: bool | None = Field(
        None, description="take the input of the layer's final ReLU; empty: yes for built-in nets"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the net's constructor")
    checkpoint: str | None = Field(
        None, description="file with weights (safetensors or torch.save); the net is then not trained"
    )
    samples: int = Field(200, ge=1, description="class-balanced training images that the target sees")
    schedule: ScheduleSpec = Field(
        default=ScheduleSpec(draws=20_000, lr=1e-3, lr_end=1e-4), description="training of the target"
    )

    @field_validator("preprocess", mode="before")
    @classmethod
    def _nothing(cls, preprocess: Any) -> Any:
        return "none" if preprocess is None else preprocess  # as the command line reads the word

    @field_validator("layer", mode="before")
    @classmethod
    def _numbered(cls, layer: Any) -> Any:
        return str(layer) if isinstance(layer, int) and not isinstance(layer, bool) else layer


class DisentanglerSpec(Spec):
    """The chain of nets Φ of rising order l = 3·blocks + 1."""

    blocks: tuple[int, ...] = Field((1, 2, 4, 8), description="residual blocks a stage, rising; order = 3·blocks + 1")
    width: int = Field(16, ge=1, le=1024, description="channels of the first stage, 128κ in the paper")
    protocol: Literal["fast", "published"] = Field(
        "fast",
        description="fast: added blocks start as the identity; published: as fresh random blocks, by the paper's schedules",
    )
    chains: int = Field(
        2,
        ge=1,
        le=16,
        description="chains with seeds of their own, which share the draws; of one nothing is told apart",
    )
    continuation: bool = Field(
        True,
        description="beside each order train the net before it on as long, and take null targets apart: the floor",
    )
    nulls: int = Field(
        2,
        ge=1,
        le=16,
        description="null targets: the lowest order's nets of so many chains, each taken apart as the target is",
    )
    wide_control: bool = Field(
        False, description="beside the highest order train the second order at twice the width: depth, or width?"
    )
    schedule: ScheduleSpec = Field(default=ScheduleSpec(), description="training at each depth")
    draws: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="draws a depth, in place of schedule.draws; the last repeats"
    )
    batches: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (), description="batch size a depth, in place of schedule.batch; the last repeats"
    )
    rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="learning rate a depth, in place of schedule.lr; the last repeats"
    )

    @field_validator("blocks")
    @classmethod
    def _rising(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if not blocks or blocks[0] < 1 or any(b <= a for a, b in itertools.pairwise(blocks)):
            raise ValueError("give at least one block count, each larger than the one before, such as 1,2,4,8")
        return blocks


class ExemplarySpec(Spec):
    """The strong nets A and B that say which features any good net finds."""

    net: str | None = Field(None, description="architecture; empty: the target's own constructor and layer")
    seeds: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = Field(
        (1001, 1002), description="seeds of A and B, apart from the run's own seed"
    )
    checkpoints: tuple[str, ...] = Field((), description="files with weights of A and B; they are then not trained")
    schedule: ScheduleSpec = Field(
        default=ScheduleSpec(draws=40_000, lr=1e-3, lr_end=1e-4), description="training on the whole pool"
    )

    @field_validator("seeds")
    @classmethod
    def _two_nets(cls, seeds: tuple[int, int]) -> tuple[int, int]:
        if seeds[0] == seeds[1]:
            raise ValueError("A and B would be the same net; give two different seeds")
        return seeds

    @field_validator("checkpoints")
    @classmethod
    def _none_or_two(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        if len(paths) not in (0, 2):
            raise ValueError("give no checkpoint or two, one for A and one for B")
        return paths


RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class ReliabilitySpec(Spec):
    """Reliable trunks ψ and the cycle of linear maps; decodability."""

    enabled: bool = Field(True, description="train exemplary nets and trunks; without them reliability is left out")
    schedule: ScheduleSpec = Field(default=ScheduleSpec(), description="training of the trunk at each depth")
    draws: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="draws a depth, in place of schedule.draws; the last repeats"
    )
    batches: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (), description="batch size a depth, in place of schedule.batch; the last repeats"
    )
    rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="learning rate a depth, in place of schedule.lr; the last repeats"
    )
    cycle_steps: int = Field(
        32_000, ge=10, description="Adam steps of the maps back h_k, spread evenly over the rounds"
    )
    rounds: int = Field(10, ge=1, le=50, description="cycle rounds R that the h_k are fitted on")
    rounds_read: int = Field(5, ge=1, le=50, description="round at which the reliable part is read")
    ridges: tuple[float, ...] = Field(
        RIDGES,
        min_length=1,
        description="candidate ridges of decodability, relative to tr Σ / C",
    )


class DistilledSpec(Spec):
    """A student of the target's net, samples and schedule that learns from an exemplary net's soft labels too."""

    temperature: float = Field(4.0, gt=0, description="softens the labels of teacher and student")
    mix: float = Field(0.9, ge=0, le=1, description="share of the soft labels in the loss, the rest being true labels")


FINE_TUNING = ScheduleSpec(draws=10_000, batch=64, lr=5e-4, lr_end=1e-5)


class PrunedSpec(Spec):
    """The target with its smallest weights set to zero, round by round, each followed by fine-tuning."""

    sparsity: float = Field(0.8, gt=0, lt=1, description="share of convolution and linear weights set to zero")
    rounds: int = Field(3, ge=1, le=100, description="rounds that the pruning is spread over")
    schedule: ScheduleSpec = Field(default=FINE_TUNING, description="fine-tuning, shared among the rounds")


class QuantisedSpec(Spec):
    """The target with few different weights a layer, fine-tuned."""

    bits: int = Field(4, ge=1, le=16, description="2^bits different weights a layer at most")
    schedule: ScheduleSpec = Field(default=FINE_TUNING, description="fine-tuning of the shared weights")


class VariantsSpec(Spec):
    """Nets made from the target and analysed as it is; none (in a file: false) leaves one out."""

    distilled: DistilledSpec | None = Field(default=DistilledSpec(), description="taught by an exemplary net")
    pruned: PrunedSpec | None = Field(default=PrunedSpec(), description="smallest weights set to zero")
    quantised: QuantisedSpec | None = Field(default=QuantisedSpec(), description="few different weights a layer")

    @field_validator("*", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value is False else value  # TOML has no none


class ComponentsSpec(Spec):
    """The stored components."""

    rows: Annotated[int, Field(ge=10)] | Literal["all"] = Field(
        1000, description="rows a split at most, drawn with a fixed seed, or all"
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="element type in the Parquet files")
    part_rows: int = Field(1024, ge=1, description="rows a Parquet part; a part is also a Shapley shard")


class AnalysisSpec(Spec):
    """Intervals."""

    bootstrap: int = Field(1000, ge=100, le=100_000, description="bootstrap draws of each interval")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="coverage of each interval")


class ComplexitySpec(Spec):
    """The validity check Task-n: does disentangling put more weight on higher orders where the task is more complex?"""

    depths: tuple[int, ...] = Field((0, 2, 8, 26, 80), description="ReLU layers n of the random task nets, rising")
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), description="a task net, learner and chain a depth for each seed")
    blocks: int = Field(6, ge=1, le=64, description="residual blocks a stage of the net that learns a task")
    schedule: ScheduleSpec = Field(default=ScheduleSpec(draws=60_000), description="training of the learner")

    @field_validator("depths")
    @classmethod
    def _two_rising(cls, depths: tuple[int, ...]) -> tuple[int, ...]:
        if len(depths) < 2 or depths[0] < 0 or any(b <= a for a, b in itertools.pairwise(depths)):
            raise ValueError("give at least two depths of 0 or more, each larger than the one before, such as 0,2,8")
        return depths

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("give at least one seed of 0 or more, none twice, such as 0,1,2,3,4")
        return seeds


Precision = Literal["auto", "fp32", "bf16"]


class SubstitutionSpec(Spec):
    """The control that substitution needs: the disentangler saw all of the pool, the target only its own samples."""

    control: bool = Field(True, description="also train disentanglers on the target's own samples alone")


class PicturesSpec(Spec):
    """How the report shows a feature's maps."""

    limits: Literal["robust", "published"] = Field(
        "robust", description="colours end at the 99th percentile of |value|, or at ±1 as in the paper"
    )


class Numerics(Spec):
    """What changes the digits of a training besides its schedule, resolved for the device."""

    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False


class RuntimeSpec(Spec):
    """Where and how a run executes; nothing here changes a result, so none of it is in a key."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    runner: Literal["threads", "processes", "ray"] = Field("threads", description="what executes the tasks")
    threads: int = Field(1, ge=1, le=256, description="CPU threads of each training (last digits depend on it)")
    per_gpu: int | None = Field(
        None,
        ge=1,
        le=16,
        description="trainings side by side on each GPU; none: one for every 20 GiB it has, at most three",
    )
    remote: str = Field(
        "", description="address of the team's cache: s3://bucket/folder, sftp://, gs://, az:// or file://"
    )
    remote_read_only: bool = Field(False, description="take from the team's cache, send nothing there")
    wait: bool = Field(True, description="a run's end waits until the team's cache has all that was computed")


class RunSpec(Spec):
    """One analysed target, end to end."""

    dataset: DatasetSpec = DatasetSpec()
    target: TargetSpec = TargetSpec()
    disentangler: DisentanglerSpec = DisentanglerSpec()
    exemplary: ExemplarySpec = ExemplarySpec()
    reliability: ReliabilitySpec = ReliabilitySpec()
    components: ComponentsSpec = ComponentsSpec()
    analysis: AnalysisSpec = AnalysisSpec()
    substitution: SubstitutionSpec = SubstitutionSpec()
    pictures: PicturesSpec = PicturesSpec()
    variants: VariantsSpec = VariantsSpec()
    complexity: ComplexitySpec = ComplexitySpec()
    seed: Annotated[int, Field(ge=0, description="root seed of subset, target and disentanglers")] = 0
    precision: Annotated[Precision, Field(description="training arithmetic; auto: bf16 where the device has it")] = (
        "auto"
    )
    compile: Annotated[bool, Field(description="torch.compile the training step; on CPUs it gained nothing")] = False
    runtime: RuntimeSpec = RuntimeSpec()


class SweepSpec(Spec):
    """Many targets: every combination of sizes, architectures, seeds and further fields, upon one base."""

    base: RunSpec = Field(default=RunSpec(), description="what all points have in common")
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="training images of the targets, such as 200, 500; empty: the preset's own"
    )
    archs: tuple[str, ...] = Field(
        (), description="architectures of the targets, such as resnet8, resnet20; empty: the preset's own"
    )
    layers: tuple[str, ...] = Field(
        (), description="layers of one net, such as layer1, layer2; all: every stage or block; empty: the preset's own"
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="root seeds, such as 0, 1, 2; with one seed, spread is unknown; empty: the preset's own"
    )
    over: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict,
        description='further fields by path, each with its values: {"disentangler.width": [8, 16]}',
    )

    @property
    def runtime(self) -> RuntimeSpec:
        """What executes all points."""
        return self.base.runtime


S = TypeVar("S", bound=Spec)
LONG = 200_000  # draws of a training; with 256,000 random blocks leave .0942, identities .0987 (order 25, CIFAR-10)


def at_depth(settings: DisentanglerSpec | ReliabilitySpec, depth: int) -> ScheduleSpec:
    """The schedule at one depth of a chain."""
    given: dict[str, tuple[float, ...]] = {
        "draws": settings.draws,
        "batch": settings.batches,
        "lr": settings.rates,
    }
    return settings.schedule.model_copy(update={name: v[min(depth, len(v) - 1)] for name, v in given.items() if v})


def shared_schedule(settings: DisentanglerSpec | ReliabilitySpec, depth: int, chains: int) -> ScheduleSpec:
    """The schedule of one chain at one depth: the chains share the depth's draws."""
    whole = at_depth(settings, depth)
    return whole.model_copy(update={"draws": max(1, whole.draws // chains)})


def starts_as_identity(settings: DisentanglerSpec, schedule: ScheduleSpec) -> bool:
    """Whether blocks that a depth adds start as the identity, not at random: by the protocol fast, on short budgets."""
    return settings.protocol == "fast" and schedule.draws < LONG


def drawn(settings: DisentanglerSpec) -> tuple[int, ...]:
    """Samples that each order's net was trained on in a chain, warm starts counted in; steps draw full batches."""
    plans = [shared_schedule(settings, i, settings.chains) for i in range(len(settings.blocks))]
    return tuple(itertools.accumulate(plan.batch * math.ceil(plan.draws / plan.batch) for plan in plans))


def nearest(name: str, valid: list[str]) -> str:
    """'; did you mean X?' for the closest valid name, or a list of all when none is close."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(valid)}."


def validate(values: dict[str, Any]) -> RunSpec:
    """A RunSpec from nested values, see `validated`."""
    return validated(RunSpec, values)


def validated(model: type[S], values: dict[str, Any]) -> S:
    """A spec of this kind from nested values.

    Raises:
        InputError: with the field's path, what it holds and what it should, the nearest valid field for an unknown one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise InputError(
                f"There is no field '{'.'.join(path)}'; {nearest(path[-1], _fields(model, path[:-1]))}"
            ) from None
        reason = first["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
        reason = reason.replace("a valid tuple", "a list, such as 1,2,4")
        raise InputError(
            f"{'.'.join(path) or 'the whole'} = {shortened(first['input'])} will not do: {reason}."
        ) from None


def _fields(model: Any, path: list[str]) -> list[str]:
    """The fields of the spec that lies at a path."""
    for part in path:
        kind = model.model_fields[part].annotation
        model = next((k for k in get_args(kind) if k is not type(None)), kind)  # X of X | None
    return [*model.model_fields]


def shortened(value: Any, most: int = 100) -> str:
    """A value as it is written, of a long one how it begins."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
