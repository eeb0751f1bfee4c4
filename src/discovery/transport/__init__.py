"""From bytes to the service and back. Adapters translate; `pipeline` is the one path that every call takes."""
