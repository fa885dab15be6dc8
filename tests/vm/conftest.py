"""Fixtures of the virtual-machine tests: the guest, its frozen state, a fresh machine per test, and tokens for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.sim.vtoken import UsbDevice
from tests.vm.bank import Authority, Bank
from tests.vm.bench.host import cache_folder
from tests.vm.bench.image import Image, build_image
from tests.vm.bench.machine import Machine, State
from tests.vm.bench.qemu import Hardware
from tests.vm.bench.redir import RedirToken
from tests.vm.bench.states import base_state

_TIMEOUT_S = 900
"""A test may be the first one, which builds the guest; and packages install slowly on an emulated processor."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the tests of this folder the time they need, unless they say so themselves."""
    if item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


@pytest.fixture(scope="session")
def image() -> Image:
    """The built guest."""
    return build_image()


@pytest.fixture(scope="session")
def base(image: Image) -> State:
    """The guest just after its boot, with nothing plugged in."""
    return base_state(image)


@pytest.fixture(scope="session")
def durable_base(image: Image) -> State:
    """The same, with a disk that survives a power cut."""
    return base_state(image, Hardware(durable=True))


@pytest.fixture
def machine(base: State) -> Iterator[Machine]:
    """A machine of the test's own."""
    with Machine.restore(base) as restored:
        yield restored


@pytest.fixture
def token(machine: Machine) -> Iterator[Callable[[UsbDevice], RedirToken]]:
    """Gives a virtual device a USB port of `machine`; `plug` puts it in."""
    with ExitStack() as stack:
        yield lambda device: stack.enter_context(RedirToken(device, machine))


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Whom the machines are told to trust."""
    return Authority(cache_folder() / "authority")


@pytest.fixture(scope="session")
def bank(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """The brands of the checkout, published."""
    made = Bank(tmp_path_factory.mktemp("bank"), authority)
    yield made
    made.close()
