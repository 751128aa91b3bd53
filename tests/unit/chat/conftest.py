"""A fake SageMaker whose address is in the environment, as `penstock env` would put it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.chat.fake_sagemaker import FakeEndpoint, FakeSageMaker

Start = Callable[..., FakeSageMaker]


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and region that are nobody's, and nothing of the machine's own AWS set-up."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_CA_BUNDLE", "AWS_SESSION_TOKEN", "endpoint_name"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def sagemaker(aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts the fake with the given endpoints: `sagemaker(name=FakeEndpoint(…))`, over TLS with a `certificate`."""
    running: list[FakeSageMaker] = []

    def start(certificate: tuple[Path, Path] | None = None, **endpoints: FakeEndpoint) -> FakeSageMaker:
        fake = FakeSageMaker(certificate, **endpoints)
        running.append(fake)
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        return fake

    yield start
    for fake in running:
        fake.close()
