"""Which addresses and URLs webhooks may have."""

import asyncio
from ipaddress import ip_address

import pytest

from app.contracts.failure import SlimlineError
from app.webhooks.target import check_target, is_public, parse_target

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "192.88.99.1",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "100::1",
    "3fff::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_it_is_no_address_of_the_public_internet(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_it_is_a_public_address(address: str) -> None:
    assert is_public(ip_address(address))


LOCAL = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://localhost:8080/",
    "http://LOCALHOST/",
    "http://[::1]/",
    "http://[::ffff:7f00:1]/",
    "http://0/",
    "https://169.254.169.254/latest/meta-data",
    "http://[::ffff:127.0.0.1]:9000/",
    "http://10.1.2.3/",
]


@pytest.mark.parametrize("url", LOCAL)
def test_a_private_target_is_refused_however_it_is_written(url: str) -> None:
    with pytest.raises(SlimlineError) as refused:
        asyncio.run(check_target(url, allow_private=False))
    assert refused.value.failure.code == "WEBHOOK_TARGET_PRIVATE"
    asyncio.run(check_target(url, allow_private=True))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "gopher://example.com:70/", "example.com/hook", "//example.com/",
        "", "https://", "http://0177.0.0.1/", "https://user:secret@example.com/", "https://user@example.com/",
        "https://example.com:22/", "https://example.com:0/", "https://example.com:99999/", "https://exa\nmple.com/",
        "https://exa\x00mple.com/", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SlimlineError) as refused:
        parse_target(url, allow_private=False)
    assert refused.value.failure.code == "WEBHOOK_URL_INVALID"


@pytest.mark.parametrize("url", ["https://example.com/a?b=c", "http://example.com:8080/", "https://bücher.example/"])
def test_a_plain_url_is_taken(url: str) -> None:
    assert parse_target(url, allow_private=False).host


def test_a_host_that_is_not_there_yet_is_taken() -> None:
    asyncio.run(check_target("https://not-there.invalid/hook", allow_private=False))
