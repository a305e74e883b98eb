# Structs as values: equality, hash, copy: part of plan.pyx.

# Values that a peer chose are put into sets, so their hashes must not be foreseeable: with known ones, a megabyte of
# structs that all collide keeps a worker busy for a minute. The secrets follow PYTHONHASHSEED, as the hash of str
# does. Nor are ints taken by Python's hash: it is the number modulo 2**61 - 1, so that each i64 has up to eight
# others like it.
cdef uint64_t SECRET_1 = <uint64_t><Py_hash_t>hash("weego: first secret of the hash of structs")
cdef uint64_t SECRET_2 = <uint64_t><Py_hash_t>hash("weego: second secret of the hash of structs")


cdef inline uint64_t mix(uint64_t sum, uint64_t lane) noexcept:
    return fold(lane ^ SECRET_1, sum ^ SECRET_2)


cdef int add_lane(uint64_t* sum, object value) except -1:
    """Mix the hash of one value into `sum`: equal values do the same, also those that Python does not hash, like a
    list."""
    cdef int overflow = 0
    cdef int64_t number
    cdef double real
    if is_text(<PyObject*>value):
        sum[0] = mix(sum[0], <uint64_t>hash(value))
        return 0
    if is_long(<PyObject*>value):
        number = long_value(<PyObject*>value, &overflow)
        sum[0] = mix(sum[0], <uint64_t><Py_hash_t>hash(value) if overflow else <uint64_t>number)
        return 0
    if is_float(<PyObject*>value):
        # 1.0 equals 1. The bounds are exact: powers of two are doubles.
        real = float_value(<PyObject*>value)
        if -9223372036854775808.0 <= real < 9223372036854775808.0 and real == <double><int64_t>real:
            sum[0] = mix(sum[0], <uint64_t><int64_t>real)
            return 0
    elif PyList_Check(value) or PyDict_Check(value):
        sum[0] = mix(sum[0], <uint64_t>container_hash(value))
        return 0
    elif isinstance(value, set):
        value = frozenset(value)
    elif PyByteArray_Check(value) or type(value) is memoryview:
        value = bytes(value)
    sum[0] = mix(sum[0], <uint64_t><Py_hash_t>hash(value))
    return 0


cdef Py_hash_t container_hash(object value) except -1:
    """The hash of a list or a dict."""
    cdef uint64_t one, all = 0
    cdef object key, item
    enter_recursion(" while hashing a value")
    try:
        if PyList_Check(value):
            for item in <list>value:
                add_lane(&all, item)
        else:
            for key, item in (<dict>value).items():
                one = 0
                add_lane(&one, key)
                add_lane(&one, item)
                # Addition, for the order of a dict is not part of its value.
                all += one
    finally:
        leave_recursion()
    return settled(all)


cdef inline Py_hash_t settled(uint64_t sum) noexcept:
    cdef Py_hash_t value = <Py_hash_t>sum
    return -2 if value == -1 else value


def value_hash(value):
    """Hash of `value` as a struct's field contributes it: equal values have equal hashes, lists and dicts included."""
    cdef uint64_t sum = 0
    if PyList_Check(value) or PyDict_Check(value):
        return container_hash(value)
    add_lane(&sum, value)
    return settled(sum)


cdef object kept_unknown(StructPlan plan, object value):
    """What its `__unknown__` holds; None where it was never set."""
    cdef PyObject* kept = slot(<void*><PyObject*>value, plan.unknown)[0]
    return None if kept == NULL else <object>kept


cdef class StructBase:
    """What all structs have that must be fast: equality, hash and copy by value. It has no fields, so that exceptions
    can be structs too."""

    def __eq__(self, other):
        cdef StructPlan plan
        cdef PyObject* mine
        cdef PyObject* theirs
        cdef object held, other_held
        cdef int i
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        plan = plan_of(type(self))
        enter_recursion(" while comparing structs")
        try:
            for i in range(plan.count):
                mine = slot(<void*><PyObject*>self, plan.nodes[i].offset)[0]
                theirs = slot(<void*><PyObject*>other, plan.nodes[i].offset)[0]
                if mine == theirs:
                    continue
                if mine == NULL or theirs == NULL:
                    return False
                # Comparing may run foreign code, which may empty the slots.
                held = <object>mine
                other_held = <object>theirs
                if not same_value(held, other_held, Py_EQ):
                    return False
            if plan.unknown >= 0 and kept_unknown(plan, self) != kept_unknown(plan, other):
                return False
        finally:
            leave_recursion()
        return True

    def __hash__(self):
        cdef StructPlan plan = plan_of(type(self))
        cdef PyObject* value
        cdef object held
        cdef uint64_t sum = 0
        cdef int i
        enter_recursion(" while hashing a struct")
        try:
            for i in range(plan.count):
                value = slot(<void*><PyObject*>self, plan.nodes[i].offset)[0]
                if value != NULL:
                    held = <object>value
                    add_lane(&sum, held)
            if plan.unknown >= 0:
                add_lane(&sum, kept_unknown(plan, self))
        finally:
            leave_recursion()
        return settled(sum)

    def __copy__(self):
        """A shallow copy."""
        cdef StructPlan plan = plan_of(type(self))
        cdef object new
        cdef PyObject* value
        cdef int i
        if type(self) is not plan.cls or not plan.is_direct:
            # A subclass may have more slots or a __dict__.
            new = type(self).__new__(type(self))
            new.__setstate__(object.__getstate__(self))
            return new
        new = plan.blank()
        for i in range(plan.count):
            value = slot(<void*><PyObject*>self, plan.nodes[i].offset)[0]
            if value != NULL:
                incref(value)
                slot(<void*><PyObject*>new, plan.nodes[i].offset)[0] = value
        if plan.unknown >= 0:
            kept = kept_unknown(plan, self)
            if kept is not None:
                incref(<PyObject*>kept)
                slot(<void*><PyObject*>new, plan.unknown)[0] = <PyObject*>kept
        return new
