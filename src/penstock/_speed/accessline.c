/* The access log's line: the twin of gateway/trace.py's. */
#include "native.h"

static void out_literal(Out *out, const char *text)
{
    out_bytes(out, text, strlen(text));
}

/* A text as JSON that needs no escapes, or `full`. */
static void out_quoted(Out *out, PyObject *text)
{
    out_bytes(out, "\"", 1);
    char *from = out->at;
    out_text(out, text);
    for (const char *c = from; c < out->at; c++)
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\')
            out->full = 1;
    out_bytes(out, "\"", 1);
}

/* An int, or a float with three places. -1 with an error. */
static int out_number(Out *out, PyObject *number)
{
    if (PyFloat_CheckExact(number)) {
        char *text = PyOS_double_to_string(PyFloat_AS_DOUBLE(number), 'f', 3, 0, NULL);
        if (text == NULL)
            return -1;
        out_literal(out, text);
        PyMem_Free(text);
        return 0;
    }
    long long value = PyLong_AsLongLong(number);
    if (value == -1 && PyErr_Occurred())
        return -1;
    char text[24];
    PyOS_snprintf(text, sizeof text, "%lld", value);
    out_literal(out, text);
    return 0;
}

/* access_line(values in the order of `keys`) -> bytes | None. Nine of any request; six more of one that found its endpoint, where None stands for
 * no first chunk and "" for no component. */
PyObject *native_access_line(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const keys[] = {
        "{\"time\":",       ",\"request_id\":", ",\"operation\":", ",\"status\":",  ",\"error\":", ",\"access_key\":",     ",\"bytes_in\":",
        ",\"bytes_out\":",  ",\"total_ms\":",   ",\"region\":",    ",\"endpoint\":", ",\"variant\":", ",\"parts\":", ",\"first_chunk_ms\":",
        ",\"component\":",
    };
    if (count != 9 && count != 15)
        return PyErr_Format(PyExc_TypeError, "a line has 9 or 15 values");
    char room[2048];
    Out out = {room, room + sizeof room, 0};
    for (Py_ssize_t i = 0; i < count && !out.full; i++) {
        if (i == 14 && PyUnicode_Check(args[i]) && PyUnicode_GET_LENGTH(args[i]) == 0)
            break;
        out_literal(&out, keys[i]);
        if (PyUnicode_Check(args[i]))
            out_quoted(&out, args[i]);
        else if (args[i] == Py_None)
            out_literal(&out, "null");
        else if (out_number(&out, args[i]) < 0)
            return NULL;
    }
    out_literal(&out, "}\n");
    if (out.full) {
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    return PyBytes_FromStringAndSize(room, out.at - room);
}
