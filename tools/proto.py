"""Generate Python from the protobuf module in `proto/`, and check the module and what is generated.

buf and betterproto's plugin are those of the environment whose Python runs this, never those that
happen to be on PATH: their versions decide what the generated code looks like, and the `proto`
dependency group pins them. Nothing here needs a network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.metadata import distribution
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "proto"
TEMPLATE = MODULE / "buf.gen.yaml"
GENERATED = Path("src/discovery/_gen")
DESCRIPTORS = "descriptors.binpb"
GOOGLE_PROTOS = ("google/rpc/status.proto", "google/rpc/error_details.proto")
MAIN_BRANCHES = ("refs/heads/main", "refs/remotes/origin/main")

SCRIPTS = sysconfig.get_path("scripts")
PLUGIN_CHATTER = "Writing "


def generate() -> int:
    """Write the generated tree; what it held before is gone."""
    with TemporaryDirectory() as workspace:
        tree = build(Path(workspace))
        shutil.rmtree(ROOT / GENERATED, ignore_errors=True)
        shutil.copytree(tree, ROOT / GENERATED)
    return 0


def check() -> int:
    """Fail if the committed tree is not what `generate` would write."""
    with TemporaryDirectory() as workspace:
        stale = differences(ROOT / GENERATED, build(Path(workspace)))
    for path in stale:
        print(f"stale: {GENERATED / path}")
    if stale:
        print("run `make proto`")
    return 1 if stale else 0


def lint() -> int:
    """Check the module's style and its formatting."""
    failures = [
        buf("lint", MODULE.name),
        buf("format", MODULE.name, "--diff", "--exit-code"),
    ]
    return 1 if any(failures) else 0


def breaking() -> int:
    """Fail if the module breaks clients of the last release, or of main while there is none."""
    baseline = find_baseline()
    if baseline is None:
        print("nothing to compare with yet: no release tag (v*) and no branch main that has proto/")
        return 0
    print(f"comparing with {baseline}")
    with TemporaryDirectory() as workspace:
        # An archive, and not buf's own git input: that clones, and cannot clone from a worktree.
        archive = Path(workspace, "baseline.tar")
        git("archive", f"--output={archive}", f"{baseline}:{MODULE.name}")
        return buf("breaking", MODULE.name, "--against", str(archive))


def build(workspace: Path) -> Path:
    """Generate everything below `workspace` and return the root of the generated tree."""
    google = workspace / "googleapis"
    copy_google_protos(google)
    for module in (MODULE, google):
        run_plugin(module, workspace)
    tree = workspace / GENERATED
    # With the imports but without comments: for server reflection and the JSON mapping.
    flags = ("--as-file-descriptor-set", "--exclude-source-info")
    require(buf("build", str(MODULE), *flags, f"--output={tree / DESCRIPTORS}"))
    return tree


def copy_google_protos(target: Path) -> None:
    """Copy the definitions of gRPC's rich errors out of the installed package.

    Where they are they make no module: buf would take every .proto file in site-packages for part
    of it.
    """
    package = distribution("googleapis-common-protos")
    for name in GOOGLE_PROTOS:
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(package.locate_file(name)), destination)


def run_plugin(module: Path, workspace: Path) -> None:
    """Generate the code of `module` below `workspace`.

    It runs there too, because the plugin leaves out each `__init__.py` that it finds below the
    current directory.
    """
    arguments = ("generate", str(module), f"--template={TEMPLATE}", f"--output={workspace}")
    result = subprocess.run(
        buf_command(*arguments),
        cwd=workspace,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    for line in result.stderr.splitlines():
        if not line.startswith(PLUGIN_CHATTER):
            print(line, file=sys.stderr)
    require(result.returncode)


def differences(old: Path, new: Path) -> list[Path]:
    """Return the files, relative to the trees, that are not the same in both."""
    before, after = contents(old), contents(new)
    names = before.keys() | after.keys()
    return sorted(name for name in names if before.get(name) != after.get(name))


def contents(tree: Path) -> dict[Path, bytes]:
    """Return the bytes of each file of `tree`, but not what Python caches there."""
    files = (path for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(tree): path.read_bytes() for path in files}


def find_baseline() -> str | None:
    """Return the ref to compare with: the newest release, else main; None if none has the module.

    Git's failures are failures here: a check that quietly compares with nothing is worse than none.
    """
    if not (ROOT / ".git").exists():
        return None
    candidates = (*refs("refs/tags/v[0-9]*")[:1], *refs(*MAIN_BRANCHES))
    return next((ref for ref in candidates if has_module(ref)), None)


def refs(*patterns: str) -> list[str]:
    """Return the existing refs for each of `patterns` in turn, the highest version first."""
    # By itself, version order puts a pre-release (v1.0.0rc1) after its release.
    settings = [("-c", f"versionsort.suffix={suffix}") for suffix in ("a", "b", "rc")]
    command = (*chain(*settings), "for-each-ref", "--sort=-version:refname", "--format=%(refname)")
    found = (git(*command, pattern) for pattern in patterns)
    return [ref for output in found for ref in output.split()]


def has_module(ref: str) -> bool:
    """Return whether the protobuf module exists at `ref`."""
    return bool(git("ls-tree", "--name-only", ref, f"{MODULE.name}/buf.yaml"))


def git(*arguments: str) -> str:
    """Run git in the repository and return its output; end the program if it fails."""
    result = subprocess.run(
        ("git", *arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    require(result.returncode)
    return result.stdout


def buf(*arguments: str) -> int:
    """Run buf in the repository and return its exit code."""
    command = buf_command(*arguments)
    return subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode


def buf_command(*arguments: str) -> tuple[str, ...]:
    """Return the command line that runs the environment's buf."""
    executable = shutil.which("buf", path=SCRIPTS)
    if executable is None:
        sys.exit(f"no buf in {SCRIPTS}: install the `proto` dependency group there")
    return (executable, *arguments)


def environment() -> dict[str, str]:
    """Return an environment in which buf finds the plugin that is installed beside it."""
    path = os.pathsep.join((SCRIPTS, os.environ.get("PATH", os.defpath)))
    return {**os.environ, "PATH": path}


def require(exit_code: int) -> None:
    """End the program with `exit_code` unless it is 0; whoever failed has said why."""
    if exit_code:
        sys.exit(exit_code)


COMMANDS: dict[str, Callable[[], int]] = {
    command.__name__: command for command in (generate, check, lint, breaking)
}


def main() -> int:
    """Run the sub-command that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__, description=command.__doc__)
    return COMMANDS[parser.parse_args().command]()


if __name__ == "__main__":
    sys.exit(main())
