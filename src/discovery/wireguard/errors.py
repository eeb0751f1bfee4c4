"""What can go wrong with a tunnel. Each message is one line that says what to do where something can be done."""

from __future__ import annotations


class TunnelError(Exception):
    """A tunnel could not be made, or is lost. Its children are the cases a caller can act on."""


class PermissionNeededError(TunnelError):
    """The kernel does not let this process change network devices."""

    def __init__(self, doing: str) -> None:
        super().__init__(f"{doing} needs root or CAP_NET_ADMIN: run it with sudo")


class ProgramMissingError(TunnelError):
    """A program that tunnels are made with is not installed; `package` is Debian's package of it."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"`{program}` is not installed: apt install {package}")
        self.program = program
        self.package = package


class CommandFailedError(TunnelError):
    """A program refused; `said` is what it wrote to stderr, on one line."""

    def __init__(self, command: str, said: str) -> None:
        super().__init__(f"`{command}` failed: {said or 'it did not say why'}")
        self.command = command
        self.said = said
