"""Which registrations are the same as what is held."""

from __future__ import annotations

from discovery.models import Registration
from discovery.remembered import Latest


class Sameness:
    """Compares registrations, and remembers which were equal: a heartbeat's is mostly the object of the one before.

    That is right because nobody changes them, and what is remembered stays alive, so that no other takes its place.
    """

    def __init__(self) -> None:
        self._equal = Latest[int, tuple[Registration, Registration]]()

    def __call__(self, registration: Registration, held: Registration) -> bool:
        """Return whether the two are equal."""
        known = self._equal.kept.get(id(registration))
        if known is not None and known[1] is held:
            return True
        if registration != held:
            return False
        self._equal.add(id(registration), (registration, held))
        return True
