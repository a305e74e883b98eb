# cython: language_level=3
"""Making structs without the interpreter's detours."""

from cpython.object cimport PyObject

# The constructor of a class whose `__init__` only sets fields, as a vectorcall function.
cdef PyObject* construct(PyObject* cls, PyObject** args, size_t nargsf, PyObject* names) except NULL
