"""The comparison table: every number in its place and in human units."""

import io

import pytest
from rich.console import Console

from app.cli.comparison import build_comparison_table, notes_of
from app.cli.edge import ExitCode
from app.cli.job_report import exit_code, print_report
from app.cli.quantities import show_bytes, show_count, show_duration, show_ratio, show_share
from app.contracts.measurement import Accuracy, Comparison, Fidelity, Latency, Measurement, StepMeasurement, compare


@pytest.fixture
def comparison() -> Comparison:
    def latency(p50: float) -> Latency:
        return Latency(p50=p50, p90=2 * p50, batch=1, threads=1, device="cpu", runs=50)

    def accuracy(value: float) -> Accuracy:
        return Accuracy(metric="top1", value=value, n=450, ci_low=value - 0.01, ci_high=value + 0.01)

    original = Measurement(
        size_bytes=1_000_000,
        size_zstd_bytes=900_000,
        parameters=250_000,
        nonzero=250_000,
        macs=41_000_000,
        latency_ms=latency(2.0),
        accuracy=accuracy(0.98),
        notes=["of the machine"],
    )
    pruned = StepMeasurement(method="prune.magnitude", size_bytes=1_000_000, parameters=250_000, nonzero=125_000)
    final = Measurement(
        size_bytes=260_000,
        size_zstd_bytes=120_000,
        parameters=250_000,
        nonzero=124_000,
        macs=41_000_000,
        latency_ms=latency(1.0),
        accuracy=accuracy(0.97),
        fidelity=Fidelity(sqnr_db=31.46, agreement=0.9956),
        notes=["of the machine", "of the end"],
    )
    return compare(original, [pruned], final)


def render(comparison: Comparison, width: int) -> list[str]:
    printed = io.StringIO()
    Console(file=printed, width=300).print(build_comparison_table(comparison, width))
    return [" ".join(line.split()) for line in printed.getvalue().splitlines() if line.strip()]


def test_rows_and_numbers(comparison: Comparison) -> None:
    lines = render(comparison, 200)
    assert lines[0] == "size zstd params non-zero MACs latency p50 accuracy (95 %) fidelity"
    assert lines[2] == "original 1 MB 900 kB 250 k 250 k 41 M 2 ms 98.0 % (97.0 to 99.0) -"
    assert lines[3] == "1 prune.magnitude 1 MB x1.00 - 250 k 125 k x0.50 - - - -"
    assert lines[4] == (
        "final 260 kB x0.26 120 kB x0.13 250 k 124 k x0.50 41 M 1 ms x0.50 97.0 % (96.0 to 98.0) 31.5 dB, 99.6 % same"
    )
    assert len(lines) == 5


def test_narrow_terminal_gets_columns(comparison: Comparison) -> None:
    lines = render(comparison, 100)
    assert lines[0] == "original 1 prune.magnitude final"
    assert lines[2] == "size 1 MB 1 MB x1.00 260 kB x0.26"
    assert lines[-1] == "fidelity - - 31.5 dB, 99.6 % same"


def test_notes_come_once(comparison: Comparison) -> None:
    assert notes_of(comparison) == ["of the machine", "of the end"]


def test_report_tells_verdict(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    missed = {"target": "max_size_ratio", "limit": 0.2, "measured": 0.26, "met": False}
    job = {
        "state": "succeeded",
        "comparison": comparison.model_dump(),
        "verdict": {"met": False, "clauses": [missed]},
        "failure": None,
    }
    print_report(job)
    assert "target max_size_ratio 0.2: measured 0.26, MISSED" in capsys.readouterr().out
    assert exit_code(job) == ExitCode.TARGETS_MISSED


def test_report_tells_failure(capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"kind": "user", "code": "NO_DATA", "message": "needs data", "step": 1, "node": None, "hint": "send it"}
    print_report({"state": "failed", "comparison": {}, "failure": failure})
    told = capsys.readouterr().err
    assert "failed in step 2: needs data [NO_DATA]" in told
    assert "send it" in told


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ({"state": "succeeded", "verdict": None}, 0),
        ({"state": "succeeded", "verdict": {"met": True}}, 0),
        ({"state": "succeeded", "verdict": {"met": False}}, 3),
        ({"state": "failed"}, 1),
        ({"state": "cancelled"}, 1),
    ],
)
def test_exit_codes(job: dict[str, object], code: int) -> None:
    assert exit_code(job) == code


def test_quantities() -> None:
    assert [show_bytes(n) for n in (0, 999, 1000, 123_456_789)] == ["0 B", "999 B", "1 kB", "123 MB"]
    assert [show_count(n) for n in (7, 1500, 25_600_000)] == ["7", "1.5 k", "25.6 M"]
    assert [show_duration(s) for s in (0.4, 83.2, 3725)] == ["0:00", "1:23", "1:02:05"]
    assert show_ratio(0.2534) == "x0.25"
    assert show_share(0.97361) == "97.4 %"
