"""The servers that ours is measured against: each does the same work, on another stack."""
