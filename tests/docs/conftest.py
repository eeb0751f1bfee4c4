"""Which tests of the documents run where."""

from __future__ import annotations

from importlib.util import find_spec

# tox has an environment for it, `openapi`: once is enough for all Pythons.
collect_ignore = [] if find_spec("schemathesis") else ["test_openapi_conformance.py"]
