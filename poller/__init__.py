"""Who is ready, move bytes, keep connections."""
