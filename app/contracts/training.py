"""How training is asked for: by the step `train`, and between the rounds of iterative pruning. Words only, no loop."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

TensorName = Annotated[str, StringConstraints(min_length=1, max_length=500)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=500)]
LossName = Literal["soft", "dkd", "logits", "feature", "hard"]
Weight = Annotated[float, Field(ge=0, le=1e6)]


class Augmentation(BaseModel):
    """Random changes of training images, new in every epoch. Images are inputs of rank 4 with 1 or 3 channels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: bool = Field(False, description="Mirror left and right, every other image")
    crop: int = Field(0, ge=0, le=1024, description="Shift by up to so many pixels; what moves in is reflected")
    colour: float = Field(0, ge=0, le=1, description="Change brightness, contrast and saturation by up to this share")
    mixup: float = Field(0, ge=0, le=10, description="Blend images and labels in pairs; alpha of the Beta distribution")
    cutmix: float = Field(0, ge=0, le=10, description="Paste a box of one image into another; alpha of the Beta")


class FeaturePair(BaseModel):
    """Two tensors to be made alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    student: TensorName
    teacher: TensorName


class Student(BaseModel):
    """What learns, where it is not the graph that the step is given: another model, or a part of that graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName | None = Field(None, description="Id of an uploaded model with the same inputs and outputs")
    width: float | None = Field(None, gt=0, lt=1, description="Share of the channels that stay, the most important")
    depth: float | None = Field(None, gt=0, lt=1, description="Share of the residual blocks that stay")
    weights: Literal["inherited", "random"] = Field("inherited", description="What the student starts from")

    @model_validator(mode="after")
    def _is_one_student(self) -> Self:
        is_cut = self.width is not None or self.depth is not None
        if self.model is not None and is_cut:
            raise ValueError("give `model`, or `width` and `depth`, not both")
        if self.model is None and not is_cut and self.weights == "inherited":
            raise ValueError("say what the student is: `model`, `width`, `depth`, or `weights: random`")
        return self


class Distillation(BaseModel):
    """Training against the outputs of a teacher (Hinton et al. 2015). Labels are used where there are any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: Literal["original"] | Annotated[int, Field(ge=0, le=31)] | ModelName = Field(
        "original",
        description="The model as uploaded; the result of an earlier step, by its index from 0; or another model's id",
    )
    loss: Literal["auto"] | LossName | dict[LossName, Weight] = Field(
        "auto",
        description="soft: KL divergence of softened class scores; dkd: the same, decoupled into the true class and "
        "the others, which needs labels; logits: squared error of the outputs, of unit variance; feature: squared "
        "error of inner tensors; hard: the labels; or weights of several. auto: soft for classes, else logits",
        examples=[{"soft": 0.9, "hard": 0.1}],
    )
    alpha: float = Field(
        0.9, ge=0, le=1, description="Share of a single `loss`; the rest is that of the labels, where there are any"
    )
    temperature: float = Field(4.0, gt=0, le=100, description="What class scores are divided by")
    beta: float = Field(8.0, ge=0, le=100, description="Of dkd: weight of the classes that are not the true one")
    standardize: bool = Field(False, description="Bring class scores to mean 0 and deviation 1 before softening them")
    features: Literal["auto"] | list[FeaturePair] = Field(
        "auto", description="For the loss `feature`: which tensors; auto finds those of one name, or of one shape"
    )
    cache: bool | None = Field(
        None,
        description="Ask the teacher once, before training; by default where its outputs fit and inputs stay",
    )
    student: Student | None = Field(None, description="Default: the graph that the step is given")

    @property
    def weights(self) -> dict[LossName, float] | None:
        """The weights given; None where a single loss and `alpha` are."""
        return dict(self.loss) if isinstance(self.loss, dict) else None

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if isinstance(self.loss, dict) and not any(self.loss.values()):
            raise ValueError("`loss` weighs nothing")
        return self


class TrainingOptions(BaseModel):
    """The one training loop: what it optimises, how, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int | None = Field(None, ge=1, le=100_000, description="Passes over the data; 10 where no end is given")
    steps: int | None = Field(None, ge=1, le=10**9, description="Updates of the weights, instead of epochs")
    seconds: float | None = Field(None, gt=0, le=7 * 86400, description="Time to train, instead of epochs")
    batch_size: Annotated[int, Field(ge=1, le=65536)] | Literal["auto"] = Field(
        "auto",
        description="Samples of one update. What does not fit into memory is halved and summed up, to the same effect",
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd has Nesterov momentum 0.9")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=100,
        description="At its highest. With BatchNormalization 1e-3 for adamw, 0.01 for sgd; without 5e-4 and 0.003",
    )
    schedule: Literal["cosine", "one_cycle", "step", "constant"] = Field(
        "cosine", description="How the learning rate falls; step: to a tenth at 50 % and again at 75 %"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the training in which the rate rises from 0")
    weight_decay: float = Field(1e-4, ge=0, le=10, description="Norms, biases and quantization scales are left alone")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip: float | None = Field(1.0, gt=0, description="Largest norm of all gradients together; null: any")
    ema: float | None = Field(None, gt=0, lt=1, description="Keep an average of the weights, with this decay per step")
    augment: Augmentation = Augmentation()
    distill: Distillation | None = Field(None, description="Learn from a teacher too; `{}` for all defaults")
    validation: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of the training data that judges and is not trained on; 0: the last state is kept",
    )
    keep: Literal["best", "last"] = Field(
        "best", description="best: an earlier state where it is better by more than chance"
    )
    patience: int | None = Field(None, ge=1, le=100_000, description="Stop after so many epochs that bring nothing")
    keep_zeros: bool = Field(True, description="Weights that are zero stay zero, as pruning left them")
    renormalize: bool = Field(
        True,
        description="While it trains, put BatchNormalization back behind convolutions that an exporter folded it into; "
        "networks with a normalization of their own, and quantized ones, stay as they are",
    )
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto", description="Mixed precision; auto: bf16 on GPUs that have it, off on CPUs and for quantized graphs"
    )
    compile: bool = Field(False, description="Compile the network with torch.compile; pays on long runs on a GPU")

    @model_validator(mode="after")
    def _has_one_end(self) -> Self:
        if sum(end is not None for end in (self.epochs, self.steps, self.seconds)) > 1:
            raise ValueError("give one of `epochs`, `steps` and `seconds`")
        return self

    def rate(self, *, is_normalized: bool) -> float:
        """The learning rate at its highest, of a network that is normalised by the batch or is not."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.optimizer == "sgd":
            return 0.01 if is_normalized else 0.003
        return 1e-3 if is_normalized else 5e-4


def _check_pruned(options: TrainingOptions) -> TrainingOptions:
    if options.distill is not None and options.distill.student is not None:
        raise ValueError("`distill.student` has no place here: what is pruned is what learns")
    if not options.keep_zeros:
        raise ValueError("`keep_zeros: false` would bring back what was pruned")
    return options


PrunedTraining = Annotated[TrainingOptions, AfterValidator(_check_pruned)]
"""Training of a graph that is being pruned."""


class PruningSchedule(BaseModel):
    """Iterative pruning: prune a little, train, prune more. The last round ends with training too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(ge=2, le=100, description="Rounds", examples=[3])
    curve: Literal["linear", "cubic", "exponential"] = Field(
        "cubic",
        description="How the share that is gone grows over the rounds: evenly; fast at first (Zhu and Gupta 2017); "
        "or the same share of what is left in each",
    )
    train: PrunedTraining = Field(
        TrainingOptions(epochs=1),
        description="How each round trains; its `schedule` is that of the last, and before the learning rate stays up",
    )
