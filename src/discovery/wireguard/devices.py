"""The two ways to have a WireGuard device: the kernel's own, and wireguard-go where the kernel has none."""

from __future__ import annotations

from typing import Literal, Protocol

from discovery.wireguard.errors import CommandFailedError, ProgramMissingError, TunnelError
from discovery.wireguard.programs import Runner
from discovery.wireguard.userspace import UserspaceDevice
from discovery.wireguard.waiting import for_ever

Backend = Literal["auto", "kernel", "wireguard-go"]

# What `ip link add` says where there is no WireGuard: iproute2 of several ages, and the kernel.
_UNKNOWN_TYPE = ("unknown device type", "operation not supported", "not supported")


class Device(Protocol):
    """A WireGuard network device that can be made, once, and removed again."""

    async def create(self, name: str) -> None:
        """Make it, so that `wg` can configure it. If that fails, `destroy` cleans up.

        Raises:
            TunnelError: it cannot be made.
        """

    async def destroy(self) -> None:
        """Remove it, if it is there."""

    async def lost(self) -> str:
        """Wait until it goes by itself, and return why."""


class KernelUnsupportedError(TunnelError):
    """This kernel has no WireGuard."""

    def __init__(self) -> None:
        super().__init__("this kernel has no WireGuard: modprobe wireguard, or use wireguard-go")


class KernelDevice:
    """A device of the kernel's own WireGuard."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._name: str | None = None

    async def create(self, name: str) -> None:
        """Make it; see Device.

        Raises:
            KernelUnsupportedError: the kernel has none.
        """
        # Before the call: if that is cancelled, nobody knows whether it was done.
        self._name = name
        try:
            await self._runner.run("ip", "link", "add", "dev", name, "type", "wireguard")
        except CommandFailedError as error:
            self._name = None
            if any(words in error.said.lower() for words in _UNKNOWN_TYPE):
                raise KernelUnsupportedError from None
            raise

    async def destroy(self) -> None:
        """Remove it, if it is there."""
        if self._name is not None:
            await remove(self._runner, self._name)
            self._name = None

    async def lost(self) -> str:
        """Wait for ever: the kernel loses none."""
        await for_ever()


class AnyDevice:
    """The kernel's device, or wireguard-go's where the kernel has none."""

    def __init__(self, kernel: Device, userspace: Device) -> None:
        self._userspace = userspace
        self._device = kernel

    async def create(self, name: str) -> None:
        """Make it; see Device."""
        try:
            await self._device.create(name)
        except KernelUnsupportedError:
            self._device = self._userspace
            await self._create_instead(name)

    async def _create_instead(self, name: str) -> None:
        try:
            await self._device.create(name)
        except ProgramMissingError as error:
            raise TunnelError(f"this kernel has no WireGuard, and {error}") from None

    async def destroy(self) -> None:
        """Remove it, if it is there."""
        await self._device.destroy()

    async def lost(self) -> str:
        """Wait until it goes by itself, and return why."""
        return await self._device.lost()


async def remove(runner: Runner, name: str) -> None:
    """Remove a network device, if it is there."""
    try:
        await runner.run("ip", "link", "delete", "dev", name)
    except CommandFailedError as error:
        if "cannot find device" not in error.said.lower():
            raise


def choose_backend(backend: Backend, runner: Runner) -> Device:
    """Return the device of a backend; `auto` is the kernel's, or wireguard-go's where the kernel has none."""
    kernel, userspace = KernelDevice(runner), UserspaceDevice(runner)
    if backend == "auto":
        return AnyDevice(kernel, userspace)
    return kernel if backend == "kernel" else userspace
