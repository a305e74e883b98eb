# Native Protobuf messages as values: equality, copy, construction, oneofs: part of proto_plan.pyx.

cdef class ProtoBase:
    """What all native messages have that must be fast. Equal are two of the same class whose fields are, unknown ones included."""

    __hash__ = None

    def __eq__(self, other):
        cdef ProtoPlan plan
        cdef PyObject* mine
        cdef PyObject* theirs
        cdef object held, other_held
        cdef int i
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        plan = plan_of(type(self))
        enter_recursion(" while comparing messages")
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
            return unknown_of(plan, self) == unknown_of(plan, other)
        finally:
            leave_recursion()

    def __copy__(self):
        """A shallow copy."""
        cdef ProtoPlan plan = plan_of(type(self))
        cdef object new
        cdef int i
        if type(self) is not plan.cls or not plan.is_direct:
            # A subclass may have more slots or a __dict__.
            new = type(self).__new__(type(self))
            new.__setstate__(object.__getstate__(self))
            return new
        new = plan.blank()
        for i in range(plan.count):
            copy_slot(self, new, plan.nodes[i].offset)
        copy_slot(self, new, plan.unknown_offset)
        return new


cdef int copy_slot(object source, object target, Py_ssize_t offset) noexcept:
    cdef PyObject* value = slot(<void*><PyObject*>source, offset)[0]
    if value != NULL:
        incref(value)
        slot(<void*><PyObject*>target, offset)[0] = value
    return 0


cdef object unknown_of(ProtoPlan plan, object value):
    cdef PyObject* unknown = slot(<void*><PyObject*>value, plan.unknown_offset)[0]
    return b"" if unknown == NULL or unknown == PyNone else <object>unknown


@cython.final
cdef class OneofMember:
    """The attribute of a oneof's member: setting one clears the others. The slot it stands for is behind it."""

    cdef ProtoPlan plan
    cdef int index
    cdef readonly str __name__

    def __get__(self, instance, owner):
        cdef PyObject* value
        if instance is None:
            return self
        if not is_subtype(type_of(<PyObject*>instance), <PyTypeObject*>self.plan.cls):
            raise TypeError(f"{self.__name__} is a field of {self.plan.name}, not of {type(instance).__name__}")
        value = slot(<void*><PyObject*>instance, self.plan.nodes[self.index].offset)[0]
        return None if value == NULL else <object>value

    def __set__(self, instance, value):
        cdef PyObject** place
        cdef PyObject* old
        if not is_subtype(type_of(<PyObject*>instance), <PyTypeObject*>self.plan.cls):
            raise TypeError(f"{self.__name__} is a field of {self.plan.name}, not of {type(instance).__name__}")
        place = slot(<void*><PyObject*>instance, self.plan.nodes[self.index].offset)
        old = place[0]
        incref(<PyObject*>value)
        place[0] = <PyObject*>value
        if value is not None:
            clear_siblings(self.plan, <void*><PyObject*>instance, &self.plan.nodes[self.index])
        if old != NULL:
            decref(old)

    def __delete__(self, instance):
        self.__set__(instance, None)

    def __repr__(self):
        return f"<oneof member {self.plan.name}.{self.__name__}>"


cdef PyObject* construct(PyObject* cls, PyObject** args, size_t nargsf, PyObject* names) except NULL:
    """`cls(name=value, …)` without a frame; whatever is not plain goes to the constructor as it is written."""
    cdef PyObject* found = type_attribute(<PyTypeObject*>cls, PLAN_NAME)
    cdef PyObject* made
    cdef Py_ssize_t given = 0 if names == NULL else raw_tuple_size(names)
    cdef ProtoPlan plan
    if vectorcall_nargs(nargsf) or found == NULL:
        return call_plainly(cls, args, nargsf, names)
    plan = <ProtoPlan>found
    if given > plan.count:
        return call_plainly(cls, args, nargsf, names)
    made = generic_alloc(<PyTypeObject*>cls, 0)
    try:
        if set_fields(plan, made, args, names, given):
            return made
    except BaseException:
        decref(made)
        raise
    decref(made)
    return call_plainly(cls, args, nargsf, names)


cdef bint set_fields(ProtoPlan plan, PyObject* made, PyObject** args, PyObject* names, Py_ssize_t given) except -1:
    """Set the fields. False when the written constructor must say what is wrong."""
    cdef Py_ssize_t i, k
    cdef int hint = 0, at
    cdef PyObject* name
    cdef PyObject* value
    cdef ProtoNode* node
    cdef PyObject* known = <PyObject*>plan.slots
    for k in range(given):
        name = raw_tuple_item(names, k)
        # Names of arguments are interned, and so are those of the table; and most callers keep the order of the fields.
        at = hint
        if at >= plan.count or raw_tuple_item(known, at) != name:
            at = -1
            for i in range(plan.count):
                if raw_tuple_item(known, i) == name:
                    at = <int>i
                    break
        if at < 0:
            at = position_of(plan, name)  # of a dict behind `**`, say
            if at < 0:
                return False
        hint = at + 1
        value = args[k]
        if value == PyNone:
            continue  # absent, or a container that is made fresh
        node = &plan.nodes[at]
        incref(value)
        slot(made, node.offset)[0] = value
        if node.sibling != at:
            check_alone(plan, made, at)
    fill_absent(plan, made)
    return not plan.has_required or is_complete(plan, made)


cdef int position_of(ProtoPlan plan, PyObject* name) noexcept:
    """Where the field of a name stands that is not interned; -1 for one that there is not."""
    cdef int i, found = -1
    if not is_exact_text(name):
        return -1
    incref(name)
    intern(&name)
    for i in range(plan.count):
        if raw_tuple_item(<PyObject*>plan.slots, i) == name:
            found = i
            break
    decref(name)
    return found


cdef int check_alone(ProtoPlan plan, void* base, int at) except -1:
    cdef int i = plan.nodes[at].sibling
    while i != at:
        if slot(base, plan.nodes[i].offset)[0] != NULL:
            raise ValueError(f"{plan.name}: {plan.slots[i]} and {plan.slots[at]} are members of one oneof; set one of them")
        i = plan.nodes[i].sibling
    return 0


# CO_VARARGS and CO_VARKEYWORDS of `inspect`.
cdef int VARIABLE = 0x04 | 0x08


def define_proto(cls, str full_name not None, *fields):
    """Give an emitted class its field table and compile it. Classes that the fields name may be defined later."""
    cdef ProtoPlan plan = ProtoPlan(cls, full_name, fields)
    cdef OneofMember member
    cdef int i
    cls.__plan__ = plan
    for i in range(plan.count):
        if plan.nodes[i].sibling != i:
            member = OneofMember.__new__(OneofMember)
            member.plan = plan
            member.index = i
            member.__name__ = plan.slots[i]
            setattr(cls, plan.slots[i], member)
    code = getattr(cls.__dict__.get("__init__"), "__code__", None)
    if not plan.is_direct or code is None or code.co_argcount != 1 or code.co_posonlyargcount or code.co_flags & VARIABLE:
        return
    if sorted(code.co_varnames[1 : 1 + code.co_kwonlyargcount]) == sorted(plan.names):
        set_vectorcall(cls, construct)


def which(message, *names):
    """Name of the member of a oneof that is set, or None."""
    for name in names:
        if getattr(message, name, None) is not None:
            return name
    return None
