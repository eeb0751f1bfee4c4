"""The commands: they parse, call, print and choose an exit code."""

import os

# Else pydantic looks through every installed package for plugins, of which we need none: a twentieth of a start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
