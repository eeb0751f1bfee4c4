"""What is generated and compiled before a run: into a scratch folder, never into the source."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from os import environ, pathsep
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
PROTO = ROOT / "proto"
PUBLIC = "coral/discovery/v1"
"""The protocol that is measured, below `PROTO`."""

SCRIPTS = sysconfig.get_path("scripts")


class SkipError(Exception):
    """Something is not installed here; the message says what, in words for whoever runs the benchmarks."""


class BrokenError(Exception):
    """Something that is here does not work; the message says what it said."""


class Scratch:
    """The folder of one run, and what is built in it when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[Self]:
        """Make a folder, and remove it in the end."""
        with TemporaryDirectory(prefix="coral-bench-") as folder:
            yield cls(Path(folder))

    @cached_property
    def grpcio(self) -> Path:
        """A folder with Google's messages and grpcio's stubs."""
        target = self._made("grpcio")
        protoc = (sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}")
        source = str(PROTO / PUBLIC / "discovery.proto")
        run(*protoc, f"--python_out={target}", f"--grpc_python_out={target}", source)
        return target

    @cached_property
    def connectrpc(self) -> Path:
        """A folder with the messages and stubs of connectrpc's own generators."""
        for plugin in ("protoc-gen-py", "protoc-gen-connectrpc"):
            tool(plugin)
        target = self._made("connectrpc")
        plugins = ("protoc-gen-py", "protoc-gen-connectrpc")
        generate(target, {"plugins": [{"local": name, "out": "."} for name in plugins]}, target)
        return target

    @cached_property
    def go(self) -> Path:
        """A folder with the Go programs of `benchmarks/`: `connectgo` and `load`."""
        tool("go")
        module = self._made("go")
        for name in ("go.mod", "go.sum"):
            shutil.copyfile(HERE / name, module / name)
        for name in ("load", "peers/connectgo"):
            shutil.copytree(HERE / name, module / name)
        generate(module, _GO_TEMPLATE, module)
        run("go", "build", "-trimpath", "-o", "bin/", "./load", "./peers/connectgo", cwd=module)
        return module / "bin"

    def _made(self, name: str) -> Path:
        target = self.folder / name
        target.mkdir()
        return target


_GO_TEMPLATE = {
    "managed": {
        "enabled": True,
        "override": [{"file_option": "go_package_prefix", "value": "coral-benchmarks/gen"}],
    },
    "plugins": [
        {"local": ["go", "tool", name], "out": "gen", "opt": "paths=source_relative"}
        for name in ("protoc-gen-go", "protoc-gen-connect-go")
    ],
}


def generate(target: Path, template: Mapping[str, object], cwd: Path) -> None:
    """Run buf's generators over the public protocol, in the folder where `go tool` finds its module."""
    text = json.dumps({"version": "v2", **template})
    where = ("--path", str(PROTO / PUBLIC), "--output", str(target))
    run(tool("buf"), "generate", str(PROTO), "--template", text, *where, cwd=cwd)


def tool(name: str, package: str = "") -> str:
    """Return the path of a program, of this Python's environment or on PATH.

    Raises:
        SkipError: it is not installed.
    """
    found = shutil.which(name, path=search_path())
    if found is None:
        raise SkipError(f"no {name} here" + (f" (install {package})" if package else ""))
    return found


def search_path() -> str:
    """Return PATH with this Python's own programs first."""
    return pathsep.join((SCRIPTS, environ.get("PATH", "")))


def on_core(core: int, command: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs `command` on that core alone; the process is the same one."""
    return (tool("taskset", "util-linux"), "--cpu-list", str(core), *command)


def run(
    *command: str, cwd: Path = ROOT, core: int | None = None, timeout: float | None = None
) -> str:
    """Run a program to its end, on one core if that is given, and return what it printed.

    Raises:
        BrokenError: it failed, or did not end within `timeout` seconds.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the commands are ours
            command if core is None else on_core(core, command),
            cwd=cwd,
            env={**environ, "PATH": search_path()},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise BrokenError(f"{Path(command[0]).name} did not end in {timeout:g} s") from error
    if done.returncode:
        raise BrokenError(f"{Path(command[0]).name}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
