"""coral-discovery: colonies register under a lease, agents find them by mesh id."""

__version__ = "0.1.0"
