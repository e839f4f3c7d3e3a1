"""What only a bucket must keep: a server that is away is the service's trouble, told without secrets."""

import pytest

from app.contracts.failure import FaultKind, SlimlineError
from app.settings import Settings
from app.storage import open_store


def test_an_unreachable_server_is_transient(bucket_settings: Settings) -> None:
    away = bucket_settings.model_copy(update={"storage_endpoint": "http://127.0.0.1:9"})
    with pytest.raises(SlimlineError) as caught:
        open_store(away).check()
    failure = caught.value.failure
    assert (failure.code, failure.kind) == ("STORAGE_UNREACHABLE", FaultKind.TRANSIENT)
    assert bucket_settings.storage_secret_key.get_secret_value() not in failure.message


def test_wrong_keys_are_told(bucket_settings: Settings) -> None:
    stranger = Settings(**{**bucket_settings.model_dump(), "storage_secret_key": "wrong"})
    with pytest.raises(SlimlineError) as caught:
        open_store(stranger).check()
    assert caught.value.failure.code == "STORAGE_UNREACHABLE"
