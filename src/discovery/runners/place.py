"""Where `coral` keeps what it must not lose: keys, and the last known colony (XDG Base Directory, XDG_STATE_HOME)."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_state_path


def colony_key(mesh_id: str) -> Path:
    """Return the file of a colony's private key."""
    return _mesh(mesh_id) / "colony.key"


def agent_key(mesh_id: str, agent_id: str) -> Path:
    """Return the file of an agent's private key."""
    return _mesh(mesh_id) / "agents" / f"{agent_id}.key"


def known_colony(mesh_id: str, agent_id: str) -> Path:
    """Return the file of what an agent last knew of its colony."""
    return _mesh(mesh_id) / "agents" / f"{agent_id}.colony.json"


def _mesh(mesh_id: str) -> Path:
    """Return a mesh's folder. An id begins with a letter or digit and has no slash, so it stays where it is put."""
    return user_state_path("coral") / mesh_id
