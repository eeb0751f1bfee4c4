"""Where the tests of what deploys the server run: tox has an environment for them, `deploy`."""

from __future__ import annotations

from importlib.util import find_spec
from shutil import which

# A Helm engine and the schemas of Kubernetes are large, and once is enough for all Pythons.
collect_ignore_glob = [] if find_spec("helm_python") else ["test_*.py"]
# For Debian's packages, which .ci/proxies.sh installs.
collect_ignore = [] if which("haproxy") and which("nginx") else ["test_proxies.py"]
