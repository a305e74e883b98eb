# cython: language_level=3, boundscheck=False, wraparound=False
"""Making structs without the interpreter's detours.

The constructor of an emitted struct only sets fields: keyword arguments, else defaults. Written in Python it costs a dict of the arguments and a
frame; here the arguments go from the caller's stack into the slots. The written constructor stays what people and type checkers read, and what runs
whenever something is not plain: positional arguments, an unknown or missing name, a subclass. So errors are the interpreter's own.

A class gets this by its `tp_vectorcall`, which the interpreter asks first when a class is called, and which subclasses do not inherit.
"""

from cpython.object cimport PyObject, PyTypeObject


from codec.plan cimport FILL_VALUE, REQUIRED, FieldNode, StructPlan, fill_absent

from codec.spec import ABSENT

cdef extern from "objects.h":
    ctypedef PyObject* (*vectorcall "weego_vectorcall")(PyObject*, PyObject**, size_t, PyObject*) except NULL
    PyObject** slot "weego_slot_at"(void* base, Py_ssize_t offset) noexcept
    void set_vectorcall "weego_set_vectorcall"(object cls, vectorcall f) noexcept
    PyObject* call_plainly "weego_call_plainly"(PyObject* cls, PyObject** args, size_t nargsf, PyObject* names) except NULL

cdef extern from "Python.h":
    PyObject* PyType_GenericAlloc(PyTypeObject* cls, Py_ssize_t items) except NULL
    PyObject* _PyType_Lookup(PyTypeObject* cls, object name) noexcept
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf) noexcept
    PyObject* PyTuple_GET_ITEM(PyObject* items, Py_ssize_t i) noexcept
    Py_ssize_t tuple_size "PyTuple_GET_SIZE"(PyObject* items) noexcept
    void Py_INCREF(PyObject* o) noexcept
    void Py_DECREF(PyObject* o) noexcept
    PyObject* PyNone "Py_None"

cdef str PLAN_NAME = "__plan__"


cdef PyObject* construct(PyObject* cls, PyObject** args, size_t nargsf, PyObject* names) except NULL:
    cdef PyObject* found = _PyType_Lookup(<PyTypeObject*>cls, PLAN_NAME)
    cdef PyObject* made
    cdef Py_ssize_t given = 0 if names == NULL else tuple_size(names)
    cdef StructPlan plan
    if PyVectorcall_NARGS(nargsf) or found == NULL:
        return call_plainly(cls, args, nargsf, names)
    plan = <StructPlan>found
    if given > plan.count:
        return call_plainly(cls, args, nargsf, names)
    made = PyType_GenericAlloc(<PyTypeObject*>cls, 0)
    try:
        if fill(plan, made, args, names, given):
            return made
    except BaseException:
        Py_DECREF(made)
        raise
    Py_DECREF(made)
    return call_plainly(cls, args, nargsf, names)


cdef bint fill(StructPlan plan, PyObject* made, PyObject** args, PyObject* names, Py_ssize_t given) except -1:
    """Set the fields. False when the written constructor must say what is wrong."""
    cdef Py_ssize_t i, k
    cdef int set_so_far = 0, hint = 0, at
    cdef PyObject* name
    cdef PyObject* value
    cdef FieldNode* node
    cdef tuple known = plan.names
    for k in range(given):
        name = PyTuple_GET_ITEM(names, k)
        # Names of arguments are interned, and so are those of the table; and most callers keep the order of the fields.
        at = hint
        if at >= plan.count or PyTuple_GET_ITEM(<PyObject*>known, at) != name:
            at = -1
            for i in range(plan.count):
                if PyTuple_GET_ITEM(<PyObject*>known, i) == name:
                    at = <int>i
                    break
        if at < 0:
            return False
        hint = at + 1
        node = &plan.nodes[at]
        value = args[k]
        if value == PyNone and node.absent != FILL_VALUE:
            continue  # what stands for "a fresh container" in the written constructor
        Py_INCREF(value)
        slot(made, node.offset)[0] = value
        set_so_far += 1
    if set_so_far == plan.count:
        return True
    for i in range(plan.count):
        node = &plan.nodes[i]
        if node.requiredness == REQUIRED and node.absent == FILL_VALUE and slot(made, node.offset)[0] == NULL:
            return False
    fill_absent(plan, made, NULL)
    return True


def install(cls):
    """Make instances of the emitted class `cls`, which has its plan, natively. False when its constructor is not a plain one."""
    plan = cls.__plan__
    if not isinstance(plan, StructPlan) or not (<StructPlan>plan).is_direct or (<StructPlan>plan).is_union:
        return False
    code = getattr(cls.__dict__.get("__init__"), "__code__", None)
    if code is None or code.co_argcount != 1 or code.co_posonlyargcount or code.co_flags & VARIABLE:
        return False
    if sorted(code.co_varnames[1 : 1 + code.co_kwonlyargcount]) != sorted(plan.names):
        return False
    if any(field.requiredness == REQUIRED and (field.factory is not None or field.default is not ABSENT) for field in plan.fields):
        return False
    set_vectorcall(cls, construct)
    return True


# CO_VARARGS and CO_VARKEYWORDS of `inspect`.
cdef int VARIABLE = 0x04 | 0x08
