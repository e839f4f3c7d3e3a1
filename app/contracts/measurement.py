"""The measured row, the comparison made of rows, and the ratios between them. Nothing is measured here."""

from pydantic import BaseModel, Field


class Latency(BaseModel):
    """Time of one inference call, original and compressed interleaved in one process."""

    p50: float = Field(description="Median, ms")
    p90: float = Field(description="90th percentile, ms")
    batch: int
    threads: int
    device: str
    runs: int


class Accuracy(BaseModel):
    """A task metric over `n` samples, with a 95 % interval (Wilson score for proportions)."""

    metric: str = Field(examples=["top1"])
    value: float
    n: int
    ci_low: float
    ci_high: float


class Fidelity(BaseModel):
    """Agreement of the outputs with the original's on the same inputs."""

    sqnr_db: float | None = Field(
        None, description="Signal-to-quantization-noise ratio of the first output, dB; null: bit-equal"
    )
    cosine: float | None = Field(None, description="Mean cosine similarity per sample")
    agreement: float | None = Field(
        None, description="Share of samples with the same arg-max; null where outputs are no scores"
    )


class Measurement(BaseModel):
    """What was measured of one graph. A null was not measured, and `notes` says why."""

    size_bytes: int = Field(description="The file as downloaded")
    size_zstd_bytes: int | None = Field(None, description="The file under zstd level 10")
    parameters: int = Field(description="Elements of all weight tensors")
    nonzero: int = Field(description="Of them, those that are not zero")
    macs: int | None = Field(None, description="Multiply-accumulates for one sample")
    weight_bits: float | None = Field(None, description="Mean stored bits per parameter")
    latency_ms: Latency | None = None
    peak_memory_bytes: int | None = Field(None, description="Rise of resident memory while loading and running")
    accuracy: Accuracy | None = None
    fidelity: Fidelity | None = None
    notes: list[str] = Field(default_factory=list)


class StepMeasurement(Measurement):
    """A row taken after one recipe step."""

    method: str


class Ratios(BaseModel):
    """Final over original; below 1 is smaller or faster. `accuracy_drop` is original minus final."""

    size: float | None = None
    size_zstd: float | None = None
    parameters: float | None = None
    nonzero: float | None = None
    macs: float | None = None
    latency: float | None = None
    peak_memory: float | None = None
    accuracy_drop: float | None = None


class Comparison(BaseModel):
    """The original beside every step and the final artifact."""

    original: Measurement | None = None
    steps: list[StepMeasurement] = Field(default_factory=list)
    final: Measurement | None = None
    ratios: Ratios | None = None


def compare(original: Measurement | None, steps: list[StepMeasurement], final: Measurement | None) -> Comparison:
    """Put rows beside each other; ratios appear once both ends are there."""
    ratios = compute_ratios(original, final) if original and final else None
    return Comparison(original=original, steps=steps, final=final, ratios=ratios)


def compute_ratios(original: Measurement, final: Measurement) -> Ratios:
    """Ratios of `final` to `original`; null where either side was not measured or the original is 0."""
    drop = None
    if original.accuracy and final.accuracy:
        drop = original.accuracy.value - final.accuracy.value
    latency = None
    if original.latency_ms and final.latency_ms:
        latency = _ratio(final.latency_ms.p50, original.latency_ms.p50)
    return Ratios(
        size=_ratio(final.size_bytes, original.size_bytes),
        size_zstd=_ratio(final.size_zstd_bytes, original.size_zstd_bytes),
        parameters=_ratio(final.parameters, original.parameters),
        nonzero=_ratio(final.nonzero, original.nonzero),
        macs=_ratio(final.macs, original.macs),
        latency=latency,
        peak_memory=_ratio(final.peak_memory_bytes, original.peak_memory_bytes),
        accuracy_drop=drop,
    )


def _ratio(final: float | None, original: float | None) -> float | None:
    return final / original if final is not None and original else None
