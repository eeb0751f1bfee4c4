"""What an administrator sees and does: the admin API, what happened lately, and the audit log."""
