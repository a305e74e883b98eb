"""The suite: one folder for each room, beside e2e, interop, fuzz and support."""
