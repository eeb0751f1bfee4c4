"""API keys: who may call what, and for which meshes.

    keys = KeysFile(path, log, clock)                # at start; raises ConfigError
    secret = bearer(call.metadata)                   # None if the call has none
    key = keys.current().find(secret, clock.now())   # None if it is unknown or expired
    key.allows(Role.REGISTER, "team-1")

`create_key`, `list_keys` and `revoke_key` are what the command line does to the file. A secret is in no repr, no
error and no log line of this package.
"""

from discovery.auth.bearer import bearer
from discovery.auth.keys import ApiKey, Keys, Role
from discovery.auth.keys_file import KeysFile
from discovery.auth.times import format_time, parse_time
from discovery.auth.writing import create_key, list_keys, revoke_key

__all__ = [
    "ApiKey",
    "Keys",
    "KeysFile",
    "Role",
    "bearer",
    "create_key",
    "format_time",
    "list_keys",
    "parse_time",
    "revoke_key",
]
