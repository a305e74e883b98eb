# Nothing for Python: the scanner is used by native code alone.
