"""Who is next: one file for each way to choose."""
