# cython: language_level=3
"""Switches between greenlets, by greenlet's own interface. Who uses one must have called `PyGreenlet_Import`."""

cdef extern from *:
    """
    #include "greenlet.h"
    static inline PyObject *weego_switch_to(PyObject *g) { return PyGreenlet_Switch((PyGreenlet *)g, NULL, NULL); }
    static inline PyObject *weego_this_greenlet(void) { return (PyObject *)PyGreenlet_GetCurrent(); }
    """
    object switch_to "weego_switch_to"(object greenlet)
    object this_greenlet "weego_this_greenlet"()

cdef extern from "greenlet.h":
    void PyGreenlet_Import()
