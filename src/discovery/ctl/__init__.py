"""What `coral-discoveryctl` does, but for its command line: ask, explain, check, and show."""
