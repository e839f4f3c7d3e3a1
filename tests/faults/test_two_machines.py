"""Two workers on machines of their own (network namespaces): one is cut off in mid-job, then its cable is put back."""

import tempfile
from pathlib import Path

import pytest

from benchmarks.faults.machines import Round, Seen, part_machines
from benchmarks.faults.network import NoNetworkError
from benchmarks.faults.site import LEASE_S

pytestmark = pytest.mark.xdist_group("faults-house")


@pytest.fixture(scope="module")
def seen() -> Seen:
    # Not below pytest's folder, which is root's alone: PostgreSQL runs as another user.
    with tempfile.TemporaryDirectory(prefix="slimline-machines-") as folder:
        Path(folder).chmod(0o755)
        try:
            return part_machines(Path(folder), print)
        except NoNetworkError as error:
            pytest.skip(f"namespaces cannot be made or joined here: {error}")


@pytest.mark.slow
def test_nothing_is_amiss(seen: Seen) -> None:
    assert seen.faults == []


@pytest.mark.slow
@pytest.mark.parametrize("mended_at", ["takeover", "end"])
def test_the_job_is_done_by_the_other_worker(seen: Seen, mended_at: str) -> None:
    [found] = [each for each in seen.rounds if each.mended_at == mended_at]
    assert isinstance(found, Round)
    assert found.attempts == 2
    assert found.mended_s >= found.taken_over_s > LEASE_S / 2
    assert found.let_through == []
