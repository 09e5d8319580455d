"""The layer without a sweep, or with a small one."""
