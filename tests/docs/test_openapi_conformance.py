"""A running server answers as docs/openapi.yaml says. It needs schemathesis: `tox run -e openapi`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT
from tests.docs.openapi import described, examples
from tests.integration.support import script, server_process

# Its own pytest plugin stays out (`-p no:schemathesis`): this needs no more than its command.
COMMAND = ("--config-file", "tests/docs/schemathesis.toml", "run", "docs/openapi.yaml")
LIMIT = 100


def test_the_server_answers_as_described(tmp_path: Path) -> None:
    with server_process(tmp_path) as server:
        finished = subprocess.run(
            [script("schemathesis"), *COMMAND, "--url", server.url, "--no-color"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    assert finished.returncode == 0, finished.stdout


def test_the_examples_are_what_they_are_examples_of() -> None:
    jsonschema = pytest.importorskip("jsonschema_rs")
    for reference, value in examples(described()):
        jsonschema.validate({**described(), "$ref": reference}, value)
