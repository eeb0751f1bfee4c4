"""The protocol with its comments, as buf reads it."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from tools import proto

Path = tuple[int, ...]

SERVICE, MESSAGE, ENUM = 6, 4, 5
"""The numbers of FileDescriptorProto's fields: with an index, the path of what stands there."""
_MEMBER = 2
"""The same of what services, messages and enums hold; only an enum's values have it too."""


@dataclass(frozen=True, slots=True)
class Documented:
    """A file of the protocol, with what its comments say."""

    file: FileDescriptorProto
    comments: Mapping[Path, str]

    def comment(self, *path: int) -> str:
        """Return the comment before what is at `path`, its lines as they were wrapped."""
        return self.comments.get(path, "")

    def member_comment(self, kind: int, index: int, member: int) -> str:
        """Return the comment of an RPC, a field or an enum's value."""
        return self.comment(kind, index, _MEMBER, member)


def read_protocol(package: str) -> Documented:
    """Return the one file that is the protocol `package`."""
    command = proto.buf_command(
        "build", str(proto.MODULE), "--as-file-descriptor-set", "--output=-"
    )
    result = subprocess.run(command, stdout=subprocess.PIPE, env=proto.environment(), check=True)
    files = FileDescriptorSet.FromString(result.stdout).file
    [file] = [file for file in files if file.package == package]
    comments = {
        tuple(location.path): _without_directives(location.leading_comments)
        for location in file.source_code_info.location
        if location.leading_comments
    }
    return Documented(file, comments)


def _without_directives(comment: str) -> str:
    """Leave out what is for buf, and the space that every line begins with."""
    lines = textwrap.dedent(comment).splitlines()
    return "\n".join(line for line in lines if not line.startswith("buf:lint:")).strip()
