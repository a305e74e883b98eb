"""Registries that run elsewhere: one file each, imported when a URL names it."""
