"""What the numbers depend on: the machine, and the versions of what ran."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path

from benchmarks.builds import BrokenError, SkipError, run, tool

_PACKAGES = (
    "betterproto",
    "connectrpc",
    "coral-discovery",
    "grpcio",
    "grpclib",
    "h2",
    "protobuf",
    "uvicorn",
    "uvloop",
)

_PROGRAMS: Sequence[tuple[str, str]] = (
    ("etcd", "--version"),
    ("go", "version"),
    ("h2load", "--version"),
    ("redis-server", "--version"),
)

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")


def machine() -> dict[str, str]:
    """Return what is known about where this runs, in words."""
    return {
        "processor": f"{_processor()}, {cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {_package(name)}" for name in _PACKAGES),
        "programs": ", ".join(f"{name} {_program(name, flag)}" for name, flag in _PROGRAMS),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"


def _program(name: str, flag: str) -> str:
    try:
        found = _VERSION.search(run(tool(name), flag))
    except (SkipError, BrokenError):
        return "(none)"
    return found.group() if found else "(unknown)"
