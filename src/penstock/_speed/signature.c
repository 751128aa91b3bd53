/* The usual form of Signature Version 4: the twin of what wire/sigv4.py does for a request as the SDKs sign it. A signature that does not
 * hold here may hold in another of AWS's canonical forms: then, and for every refusal, sigv4.py has the word. */
#include "native.h"
#include <fcntl.h>
#include <sys/ioctl.h>
#include <errno.h>

#define HEX (2 * SHA256_BYTES)
#define LONGEST_CANONICAL 4096

/* One part of a credential: printable, without the comma and the slash that end it. */
static const char *credential_part(const char *at, const char *end)
{
    const char *from = at;
    while (at < end && *at > ' ' && *at < 127 && *at != ',' && *at != '/')
        at++;
    return at < end && at > from ? at : NULL;
}

static const char *after(const char *at, const char *end, const char *text)
{
    size_t length = strlen(text);
    return (size_t)(end - at) >= length && memcmp(at, text, length) == 0 ? at + length : NULL;
}

static int is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* claim(authorization) -> (access key, date, region, service, names of the signed headers, signature) | None */
PyObject *native_claim(PyObject *module, PyObject *arg)
{
    if (!PyUnicode_Check(arg))
        return PyErr_Format(PyExc_TypeError, "claim takes a str");
    if (PyUnicode_READY(arg) < 0)
        return NULL;
    if (!PyUnicode_IS_ASCII(arg))
        Py_RETURN_NONE;
    const char *text = (const char *)PyUnicode_1BYTE_DATA(arg), *end = text + PyUnicode_GET_LENGTH(arg);
    const char *from[4], *to[4], *at = after(text, end, "AWS4-HMAC-SHA256 Credential=");
    for (int i = 0; i < 4 && at != NULL; i++) { /* access key, date, region, service, each with a slash behind it */
        from[i] = at;
        to[i] = at = credential_part(at, end);
        at = at != NULL && *at == '/' ? at + 1 : NULL;
    }
    if (at == NULL || to[1] - from[1] != 8)
        Py_RETURN_NONE;
    for (const char *c = from[1]; c < to[1]; c++)
        if (*c < '0' || *c > '9')
            Py_RETURN_NONE;
    const char *names = after(at, end, "aws4_request, SignedHeaders="), *c = names;
    while (c != NULL && c < end && ((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == ';' || *c == '-'))
        c++;
    const char *signature = c != NULL && c > names ? after(c, end, ", Signature=") : NULL;
    if (signature == NULL || end - signature != HEX)
        Py_RETURN_NONE;
    for (const char *digit = signature; digit < end; digit++)
        if (!is_hex(*digit))
            Py_RETURN_NONE;
    return Py_BuildValue("(s#s#s#s#s#s#)", from[0], (Py_ssize_t)(to[0] - from[0]), from[1], (Py_ssize_t)8, from[2],
                         (Py_ssize_t)(to[2] - from[2]), from[3], (Py_ssize_t)(to[3] - from[3]), names, (Py_ssize_t)(c - names), signature,
                         (Py_ssize_t)HEX);
}

/* digest(data) -> SHA-256 in hex */
PyObject *native_digest(PyObject *module, PyObject *arg)
{
    if (!PyBytes_CheckExact(arg))
        return PyErr_Format(PyExc_TypeError, "digest takes bytes");
    uint32_t state[8];
    uint8_t digest[SHA256_BYTES];
    sha256_start(state);
    sha256_finish(state, (const uint8_t *)PyBytes_AS_STRING(arg), (size_t)PyBytes_GET_SIZE(arg), 0, digest);
    PyObject *text = PyUnicode_New(HEX, 127);
    if (text != NULL)
        sha256_hex(digest, (char *)PyUnicode_1BYTE_DATA(text));
    return text;
}

/* hash_plainly(bool): whether to do as on a processor without instructions for SHA-256; for tests */
PyObject *native_hash_plainly(PyObject *module, PyObject *arg)
{
    int plainly = PyObject_IsTrue(arg);
    if (plainly < 0)
        return NULL;
    sha256_choose(plainly);
    Py_RETURN_NONE;
}

/* keyed(key) -> both states of HMAC (RFC 2104) that a key of at most 64 bytes begins with; for `signed` alone */
PyObject *native_keyed(PyObject *module, PyObject *arg)
{
    if (!PyBytes_CheckExact(arg) || PyBytes_GET_SIZE(arg) > SHA256_BLOCK)
        return PyErr_Format(PyExc_TypeError, "keyed takes at most %d bytes", SHA256_BLOCK);
    uint32_t states[16];
    for (int outer = 0; outer < 2; outer++) {
        uint8_t block[SHA256_BLOCK] = {0};
        memcpy(block, PyBytes_AS_STRING(arg), (size_t)PyBytes_GET_SIZE(arg));
        for (int i = 0; i < SHA256_BLOCK; i++)
            block[i] ^= outer ? 0x5c : 0x36;
        sha256_start(states + 8 * outer);
        sha256_blocks(states + 8 * outer, block, 1);
    }
    return PyBytes_FromStringAndSize((const char *)states, sizeof states);
}

/* ASCII, or `full`. */
static void out_ascii(Out *out, PyObject *text)
{
    if (!PyUnicode_Check(text) || PyUnicode_READY(text) < 0 || !PyUnicode_IS_ASCII(text))
        out->full = 1;
    else
        out_text(out, text);
}

/* A header's value that is canonical as it is, or `full`: no control characters, no outer and no double spaces. */
static void out_value(Out *out, PyObject *value)
{
    char *from = out->at;
    out_ascii(out, value);
    for (char *c = from; c < out->at; c++)
        if (*c < ' ' || (*c == ' ' && (c == from || c + 1 == out->at || c[1] == ' ')))
            out->full = 1;
}

/* The canonical request. -1 with an error; whatever is not usual makes `out` full. */
static int write_canonical(Out *out, PyObject *const *args)
{
    PyObject *headers = args[3], *names = args[4];
    for (int i = 0; i < 3; i++) { /* method, path, query */
        out_ascii(out, args[i]);
        out_bytes(out, "\n", 1);
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i), *value = PyDict_GetItemWithError(headers, name);
        if (value == NULL && PyErr_Occurred())
            return -1;
        out_ascii(out, name);
        out_bytes(out, ":", 1);
        if (value != NULL)
            out_value(out, value);
        out_bytes(out, "\n", 1);
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        out_bytes(out, i ? ";" : "\n", 1);
        out_ascii(out, PyTuple_GET_ITEM(names, i));
    }
    if (PyTuple_GET_SIZE(names) == 0)
        out->full = 1;
    out_bytes(out, "\n", 1);
    out_ascii(out, args[5]); /* payload */
    return 0;
}

/* signed(keyed, method, path, query, headers, names, payload, time, date, region, service, signature) -> whether the signature holds in the usual form.
 * `path` and `query` are canonical. False says nothing of other forms. */
PyObject *native_signed(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 12 || !PyBytes_CheckExact(args[0]) || PyBytes_GET_SIZE(args[0]) != 64 || !PyDict_Check(args[4]) || !PyTuple_Check(args[5])
        || !PyUnicode_Check(args[11]))
        return PyErr_Format(PyExc_TypeError, "signed takes a key, a request and its claim");
    char room[LONGEST_CANONICAL], hex[HEX];
    uint32_t states[16];
    uint8_t digest[SHA256_BYTES];
    Out out = {room, room + sizeof room, 0};
    if (write_canonical(&out, args + 1) < 0)
        return NULL;
    if (out.full || PyUnicode_READY(args[11]) < 0 || !PyUnicode_IS_ASCII(args[11]) || PyUnicode_GET_LENGTH(args[11]) != HEX) {
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_FALSE;
    }
    sha256_start(states);
    sha256_finish(states, (const uint8_t *)room, (size_t)(out.at - room), 0, digest);
    sha256_hex(digest, hex);
    out.at = room;
    out_bytes(&out, "AWS4-HMAC-SHA256\n", 17);
    out_ascii(&out, args[7]); /* time */
    out_bytes(&out, "\n", 1);
    for (int i = 8; i < 11; i++) { /* the scope */
        out_ascii(&out, args[i]);
        out_bytes(&out, "/", 1);
    }
    out_bytes(&out, "aws4_request\n", 13);
    out_bytes(&out, hex, HEX);
    if (out.full) {
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_FALSE;
    }
    memcpy(states, PyBytes_AS_STRING(args[0]), sizeof states);
    sha256_finish(states, (const uint8_t *)room, (size_t)(out.at - room), SHA256_BLOCK, digest);
    sha256_finish(states + 8, digest, sizeof digest, SHA256_BLOCK, digest);
    sha256_hex(digest, hex);
    const Py_UCS1 *given = PyUnicode_1BYTE_DATA(args[11]);
    volatile int differs = 0; /* in constant time: how far a guess is right must not be told, whatever a compiler thinks of it */
    for (int i = 0; i < HEX; i++)
        differs |= given[i] ^ (Py_UCS1)hex[i];
    return PyBool_FromLong(!differs);
}

/* covered(headers, names) -> whether `host` and every `x-amz-` header is among the signed names. False leaves exceptions to the twin. */
PyObject *native_covered(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyDict_Check(args[0]) || !PyTuple_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "covered takes a dict and a tuple");
    int host = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[1]) && !host; i++) {
        if (!PyUnicode_Check(PyTuple_GET_ITEM(args[1], i)))
            return PyErr_Format(PyExc_TypeError, "names are strs");
        host = PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(args[1], i), "host") == 0;
    }
    if (!host)
        Py_RETURN_FALSE;
    PyObject *name, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(args[0], &at, &name, &value)) {
        if (!PyUnicode_Check(name) || PyUnicode_READY(name) < 0 || PyUnicode_KIND(name) != PyUnicode_1BYTE_KIND)
            Py_RETURN_FALSE;
        if (PyUnicode_GET_LENGTH(name) < 6 || memcmp(PyUnicode_1BYTE_DATA(name), "x-amz-", 6) != 0)
            continue;
        int found = 0;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[1]) && !found; i++)
            found = PyUnicode_Compare(PyTuple_GET_ITEM(args[1], i), name) == 0;
        if (!found) {
            if (PyErr_Occurred())
                return NULL;
            Py_RETURN_FALSE;
        }
    }
    Py_RETURN_TRUE;
}

/* silent(fd) -> whether no byte waits to be read. Raises OSError. */
PyObject *native_silent(PyObject *module, PyObject *arg)
{
    int fd = (int)PyLong_AsLong(arg), waiting = 0;
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    if (ioctl(fd, FIONREAD, &waiting) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBool_FromLong(waiting == 0);
}
