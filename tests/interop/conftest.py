"""Before any test: the code is generated. For every test: an address of its own, and an end to what it started."""

import generated
import pytest

generated.generate()

from nodes import Network  # noqa: E402  needs the generated code


@pytest.fixture
def network():
    """Starts nodes on a loopback address that nobody else uses; all are gone after the test."""
    with Network() as network:
        yield network
