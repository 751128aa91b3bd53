/* What the files of the compiled twin share. Each function here either gives what its twin in Python gives, or says that the twin must
 * be asked (None, or False): nothing in C ever raises an error of a protocol, or decides what an error is. */
#ifndef PENSTOCK_NATIVE_H
#define PENSTOCK_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define SHA256_BYTES 32
#define SHA256_BLOCK 64

/* FIPS 180-4, over whole and partial blocks (sha256.c). */
/* Takes the processor's own instructions where it has them and `plain` is not asked for. */
void sha256_choose(int plain);
void sha256_start(uint32_t state[8]);
void sha256_blocks(uint32_t state[8], const uint8_t *data, size_t blocks);
/* The last bytes of a message of which `before` bytes, whole blocks, are in `state` already. */
void sha256_finish(uint32_t state[8], const uint8_t *data, size_t length, uint64_t before, uint8_t digest[SHA256_BYTES]);
void sha256_hex(const uint8_t digest[SHA256_BYTES], char text[2 * SHA256_BYTES]);

/* Bytes that are written one after another into room that is given; `full` once they did not fit. */
typedef struct {
    char *at, *end;
    int full;
} Out;

static inline void out_bytes(Out *out, const char *data, size_t length)
{
    if ((size_t)(out->end - out->at) < length) {
        out->full = 1;
        return;
    }
    memcpy(out->at, data, length);
    out->at += length;
}

/* A str that is Latin-1; any other makes `out` full. */
static inline void out_text(Out *out, PyObject *text)
{
    if (!PyUnicode_Check(text) || PyUnicode_READY(text) < 0 || PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND)
        out->full = 1;
    else
        out_bytes(out, (const char *)PyUnicode_1BYTE_DATA(text), (size_t)PyUnicode_GET_LENGTH(text));
}

int heads_ready(void);
PyObject *native_request_head(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_whole_answer(PyObject *, PyObject *);
PyObject *native_container_head(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_claim(PyObject *, PyObject *);
PyObject *native_hash_plainly(PyObject *, PyObject *);
PyObject *native_digest(PyObject *, PyObject *);
PyObject *native_keyed(PyObject *, PyObject *);
PyObject *native_signed(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_access_line(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_covered(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_silent(PyObject *, PyObject *);
extern PyType_Spec tokens_spec;

#endif
