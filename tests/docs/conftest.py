"""Which tests of the documents run where."""

from __future__ import annotations

from importlib.util import find_spec

# tox has environments for them, `openapi` and `deploy`: once is enough for all Pythons.
_NEEDED = {"schemathesis": "test_openapi_conformance.py", "mkdocs": "test_site.py"}
collect_ignore = [file for package, file in _NEEDED.items() if not find_spec(package)]
