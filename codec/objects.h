/* Python objects from C: slots by their offsets, ints and strings without detours. Shared by the native message plans. */

#ifndef WEEGO_OBJECTS_H
#define WEEGO_OBJECTS_H

#include <Python.h>
#include <structmember.h>
#include <stdint.h>
#include <string.h>

#define weego_slot_at(base, offset) ((PyObject **)((char *)(base) + (offset)))

/* Offset of the slot behind a member descriptor; -1 when it holds no Python object. */
static inline Py_ssize_t weego_offset_of(PyObject *descriptor) {
    PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
    return member->type == T_OBJECT_EX ? member->offset : -1;
}

/* An int of one digit, which most are, without a call; -1 in `rest` means: not this one. */
static inline int weego_small_int(PyObject *v, int64_t *number) {
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact((PyLongObject *)v))
        return 0;
    *number = (int64_t)PyUnstable_Long_CompactValue((PyLongObject *)v);
    return 1;
#else
    Py_ssize_t size = Py_SIZE(v);
    if (size < -1 || size > 1)
        return 0;
    *number = size == 0 ? 0 : size * (int64_t)((PyLongObject *)v)->ob_digit[0];
    return 1;
#endif
}

/* The value of an exact int of up to two digits (60 bits), without a call; 0: not this one. */
static inline int weego_usual_int(PyObject *v, int64_t *number) {
#if PY_VERSION_HEX >= 0x030C0000
    return weego_small_int(v, number);
#else
    const digit *d = ((PyLongObject *)v)->ob_digit;
    switch (Py_SIZE(v)) {
    case 0: *number = 0; return 1;
    case 1: *number = d[0]; return 1;
    case -1: *number = -(int64_t)d[0]; return 1;
    case 2: *number = (int64_t)d[0] | (int64_t)d[1] << PyLong_SHIFT; return 1;
    case -2: *number = -((int64_t)d[0] | (int64_t)d[1] << PyLong_SHIFT); return 1;
    default: return 0;
    }
#endif
}

/* An int; numbers of 31 to 60 bits without counting digits. */
static inline PyObject *weego_int_from(int64_t v) {
#if PY_VERSION_HEX < 0x030C0000 && PYLONG_BITS_IN_DIGIT == 30
    uint64_t a = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    if (a >> PyLong_SHIFT && !(a >> 2 * PyLong_SHIFT)) {
        PyLongObject *made = _PyLong_New(2);
        if (made == NULL)
            return NULL;
        made->ob_digit[0] = (digit)(a & PyLong_MASK);
        made->ob_digit[1] = (digit)(a >> PyLong_SHIFT);
        if (v < 0)
            Py_SET_SIZE(made, -2);
        return (PyObject *)made;
    }
#endif
    return PyLong_FromLongLong(v);
}

/* Write exact ints of up to 60 bits as eight big-endian bytes each, up to the first that is something else; how many. No Python code runs meanwhile. */
static inline Py_ssize_t weego_put_i64s(PyObject **items, Py_ssize_t n, uint8_t *p) {
    Py_ssize_t i;
    int64_t number;
    uint64_t turned;
    for (i = 0; i < n; i++, p += 8) {
        if (!PyLong_CheckExact(items[i]) || !weego_usual_int(items[i], &number))
            break;
        turned = (uint64_t)number;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        turned = __builtin_bswap64(turned);
#endif
        memcpy(p, &turned, 8);
    }
    return i;
}

/* Make ints of eight big-endian bytes each; how many were made: fewer than n when memory ran out, with an exception set. */
static inline Py_ssize_t weego_get_i64s(PyObject **items, Py_ssize_t n, const uint8_t *p) {
    Py_ssize_t i;
    uint64_t turned;
    for (i = 0; i < n; i++, p += 8) {
        memcpy(&turned, p, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        turned = __builtin_bswap64(turned);
#endif
        items[i] = weego_int_from((int64_t)turned);
        if (items[i] == NULL)
            break;
    }
    return i;
}

#define weego_list_items(list) (((PyListObject *)(list))->ob_item)

/* Is every byte below 128? Eight at a time. */
static inline int weego_is_ascii(const char *s, Py_ssize_t n) {
    Py_ssize_t i = 0;
    uint64_t word;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, s + i, 8);
        if (word & 0x8080808080808080ULL)
            return 0;
    }
    for (; i < n; i++)
        if (s[i] & 0x80)
            return 0;
    return 1;
}

/* A str from UTF-8; ASCII needs no decoder. NULL: UnicodeDecodeError is set. `lenient`: bytes that are no UTF-8 become lone
   surrogates, as Python's file names have them. */
static inline PyObject *weego_str(const char *s, Py_ssize_t n, int lenient) {
    PyObject *text;
    if (n <= 1 || !weego_is_ascii(s, n))
        return PyUnicode_DecodeUTF8(s, n, lenient ? "surrogateescape" : NULL);
    text = PyUnicode_New(n, 127);
    if (text != NULL)
        memcpy(PyUnicode_1BYTE_DATA(text), s, n);
    return text;
}

#define weego_text(s, n) weego_str(s, n, 0)

typedef PyObject *(*weego_vectorcall)(PyObject *, PyObject **, size_t, PyObject *);
static inline void weego_set_vectorcall(PyObject *cls, weego_vectorcall f) {
    ((PyTypeObject *)cls)->tp_vectorcall = (vectorcallfunc)f;
}
/* What calling the class does where it has no tp_vectorcall. */
static inline PyObject *weego_call_plainly(PyObject *cls, PyObject **args, size_t nargsf, PyObject *names) {
    Py_ssize_t i, n = PyVectorcall_NARGS(nargsf), k = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    PyObject *result = NULL, *kwargs = NULL, *positional = PyTuple_New(n);
    if (positional == NULL)
        return NULL;
    for (i = 0; i < n; i++) {
        Py_INCREF(args[i]);
        PyTuple_SET_ITEM(positional, i, args[i]);
    }
    if (k) {
        kwargs = PyDict_New();
        for (i = 0; kwargs != NULL && i < k; i++)
            if (PyDict_SetItem(kwargs, PyTuple_GET_ITEM(names, i), args[n + i]) < 0)
                Py_CLEAR(kwargs);
        if (kwargs == NULL) {
            Py_DECREF(positional);
            return NULL;
        }
    }
    result = PyType_Type.tp_call(cls, positional, kwargs);
    Py_DECREF(positional);
    Py_XDECREF(kwargs);
    return result;
}
#define weego_allocates_plainly(cls, base) \
    (((PyTypeObject *)(cls))->tp_new == ((PyTypeObject *)(base))->tp_new \
     && ((PyTypeObject *)(cls))->tp_alloc == PyType_GenericAlloc)
/* The call says "not zero", and in some versions means 1, when an exception is set. */
#define weego_enter_recursion(where) (Py_EnterRecursiveCall(where) ? -1 : 0)

static inline int weego_varint_size(uint64_t v) {
    return (9 * (64 - __builtin_clzll(v | 1)) + 64) / 64;
}

static inline uint8_t *weego_put_varint(uint8_t *p, uint64_t v) {
    while (v >= 0x80) {
        *p++ = (uint8_t)v | 0x80;
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

/* A varint from p, not at or beyond `end`. NULL: cut off, or longer than ten bytes. Bits beyond 64 are dropped, as upb does. */
static inline const uint8_t *weego_get_varint(const uint8_t *p, const uint8_t *end, uint64_t *value) {
    uint64_t v;
    int shift;
    *value = 0;
    if (p >= end)
        return NULL;
    v = *p++;
    if (v < 0x80) {
        *value = v;
        return p;
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (end - p >= 7) {
        /* Eight bytes at once: where the first below 128 is, and then the sevens of bits moved together in three steps. */
        uint64_t word, ends;
        memcpy(&word, p - 1, 8);
        ends = ~word & 0x8080808080808080ULL;
        if (ends) {
            int size = (__builtin_ctzll(ends) >> 3) + 1;
            word &= (uint64_t)0x7F7F7F7F7F7F7F7FULL >> (64 - 8 * size);
            word = (word & 0x007F007F007F007FULL) | (word & 0x7F007F007F007F00ULL) >> 1;
            word = (word & 0x00003FFF00003FFFULL) | (word & 0x3FFF00003FFF0000ULL) >> 2;
            *value = (word & 0x0FFFFFFFULL) | (word & 0x0FFFFFFF00000000ULL) >> 4;
            return p - 1 + size;
        }
    }
#endif
    v &= 0x7F;
    for (shift = 7; shift < 70 && p < end; shift += 7) {
        uint64_t byte = *p++;
        v |= (byte & 0x7F) << shift;
        if (byte < 0x80) {
            *value = v;
            return p;
        }
    }
    return NULL;
}

/* Make ints of varints from p on until `end` or `n` of them; how many were made, and in `p` where it stopped: before the first that is cut off or too
   long, or for which there was no memory (an exception is set). */
static inline Py_ssize_t weego_get_varint_ints(PyObject **items, Py_ssize_t n, const uint8_t **p, const uint8_t *end) {
    Py_ssize_t i;
    uint64_t bits;
    const uint8_t *at = *p, *next;
    for (i = 0; i < n && at < end; i++, at = next) {
        next = weego_get_varint(at, end, &bits);
        if (next == NULL || (items[i] = weego_int_from((int64_t)bits)) == NULL)
            break;
    }
    *p = at;
    return i;
}

/* How many varints end between p and end. */
static inline Py_ssize_t weego_count_varints(const uint8_t *p, const uint8_t *end) {
    Py_ssize_t n = 0;
    for (; p < end; p++)
        n += *p < 0x80;
    return n;
}

static inline uint32_t weego_le32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    return v; }
static inline uint64_t weego_le64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v; }
static inline void weego_put_le32(uint8_t *p, uint32_t v) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    memcpy(p, &v, 4); }
static inline void weego_put_le64(uint8_t *p, uint64_t v) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, 8); }

#endif
