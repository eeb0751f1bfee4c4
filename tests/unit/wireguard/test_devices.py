"""Which device is made where: the kernel's, wireguard-go's, or a clear word that there is neither."""

from __future__ import annotations

import pytest

from discovery.wireguard.devices import (
    AnyDevice,
    KernelDevice,
    KernelUnsupportedError,
    choose_backend,
)
from discovery.wireguard.errors import PermissionNeededError, ProgramMissingError, TunnelError
from discovery.wireguard.userspace import UserspaceDevice
from tests.unit.wireguard.support import Answer, ScriptedRunner, refused


class FakeDevice:
    """Made or refused, as it is told."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.names: list[str] = []
        self.destroyed = 0

    async def create(self, name: str) -> None:
        self.names.append(name)
        if self.refusal is not None:
            raise self.refusal

    async def destroy(self) -> None:
        self.destroyed += 1

    async def lost(self) -> str:
        return "the fake was lost"


@pytest.mark.parametrize(
    "said",
    [
        "Error: Unknown device type.",
        "RTNETLINK answers: Operation not supported",
        "RTNETLINK answers: Not supported",
    ],
)
async def test_a_kernel_without_wireguard_is_named(said: str) -> None:
    device = KernelDevice(ScriptedRunner({"ip link add": refused(said)}))

    with pytest.raises(KernelUnsupportedError, match="modprobe wireguard"):
        await device.create("coral-x")


@pytest.mark.parametrize("answer", [refused("RTNETLINK answers: File exists"), TunnelError("slow")])
async def test_what_else_the_kernel_refuses_is_handed_on(answer: Answer) -> None:
    with pytest.raises(TunnelError, match=str(answer)):
        await KernelDevice(ScriptedRunner({"ip link add": answer})).create("coral-x")


async def test_where_the_kernel_can_wireguard_go_is_not_asked() -> None:
    kernel, userspace = FakeDevice(), FakeDevice()
    device = AnyDevice(kernel, userspace)

    await device.create("coral-x")
    await device.destroy()

    assert (kernel.names, kernel.destroyed) == (["coral-x"], 1)
    assert (userspace.names, userspace.destroyed) == ([], 0)


async def test_where_the_kernel_cannot_wireguard_go_serves_the_device() -> None:
    kernel, userspace = FakeDevice(KernelUnsupportedError()), FakeDevice()
    device = AnyDevice(kernel, userspace)

    await device.create("coral-x")

    assert await device.lost() == "the fake was lost"
    await device.destroy()
    assert (userspace.names, userspace.destroyed) == (["coral-x"], 1)
    assert kernel.destroyed == 0


async def test_where_the_kernel_may_not_wireguard_go_is_not_asked() -> None:
    userspace = FakeDevice()

    with pytest.raises(PermissionNeededError):
        await AnyDevice(FakeDevice(PermissionNeededError("it")), userspace).create("coral-x")

    assert userspace.names == []


async def test_where_there_is_neither_both_are_named() -> None:
    userspace = FakeDevice(ProgramMissingError("wireguard-go", "wireguard-go"))

    with pytest.raises(TunnelError, match=r"no WireGuard, and .*apt install wireguard-go"):
        await AnyDevice(FakeDevice(KernelUnsupportedError()), userspace).create("coral-x")


def test_a_backend_is_chosen_by_its_name() -> None:
    runner = ScriptedRunner()

    assert isinstance(choose_backend("kernel", runner), KernelDevice)
    assert isinstance(choose_backend("wireguard-go", runner), UserspaceDevice)
    assert isinstance(choose_backend("auto", runner), AnyDevice)
