"""What `coral colony start` and `coral connect` do: discovery, keys and a tunnel put together."""
