/* The token path: one read that is exactly one HTTP chunk of the container becomes one PayloadPart in one HTTP chunk to the client.
 * The twin of gateway/tokens.py. All that a token touches of ours is this object, its read, and the client's transport. */
#include "native.h"
#include <structmember.h>
#include <sys/socket.h>

#define LONGEST_PART 8192
#define PRELUDE 12
#define HEADS 64

/* The headers of a PayloadPart event (wire/eventstream/encode.py), as in every frame of one. */
static const char part_headers[] = "\x0b:event-type\x07\x00\x0bPayloadPart"
                                   "\x0d:content-type\x07\x00\x18" "application/octet-stream"
                                   "\x0d:message-type\x07\x00\x05" "event";
#define HEADERS (sizeof part_headers - 1)

static uint32_t crc_table[4][256];
/* What stands before a payload of some length, and the CRC to go on from; few lengths come again and again. */
static struct head {
    uint32_t size, length, crc;
    char bytes[8 + PRELUDE + HEADERS];
} heads[HEADS];
static PyObject *received, *write_name, *is_closing, *buffer_size, *parts_name, *bytes_name;

typedef struct {
    PyObject_HEAD
    PyObject *client; /* its transport; NULL while no stream is open */
    PyObject *note;
    Py_ssize_t parts, bytes; /* that `note` has not been told of */
    int fd;                  /* the client's socket, -1 where only its transport can write */
    char at_chunk;
} Tokens;

static void crc_ready(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        crc_table[0][i] = crc;
    }
    for (int t = 1; t < 4; t++)
        for (int i = 0; i < 256; i++)
            crc_table[t][i] = crc_table[t - 1][i] >> 8 ^ crc_table[0][crc_table[t - 1][i] & 255];
}

/* CRC-32 as zlib has it, to go on from `crc`. */
static uint32_t crc_of(uint32_t crc, const char *data, size_t length)
{
    const uint8_t *at = (const uint8_t *)data;
    crc = ~crc;
    for (; length >= 4; length -= 4, at += 4) {
        crc ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        crc = crc_table[3][crc & 255] ^ crc_table[2][crc >> 8 & 255] ^ crc_table[1][crc >> 16 & 255] ^ crc_table[0][crc >> 24];
    }
    for (; length; length--, at++)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *at) & 255];
    return ~crc;
}

static void write_word(char *at, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        at[i] = (char)(word >> (24 - 8 * i));
}

static size_t write_hex(char *at, uint32_t number, const char *digits)
{
    size_t count = 1;
    while (count < 8 && number >> 4 * count)
        count++;
    for (size_t i = 0; i < count; i++)
        at[i] = digits[number >> 4 * (count - 1 - i) & 15];
    return count;
}

static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";

/* Where the data of a read begins that is exactly one chunk, and its size; 0 where it is none, or one too long for here. */
static size_t chunk_at(const char *data, size_t length, uint32_t *size)
{
    for (size_t digits = 1; digits < 5; digits++) {
        char text[8];
        if (length <= digits + 4 || length - digits - 4 > LONGEST_PART)
            continue;
        *size = (uint32_t)(length - digits - 4);
        if (write_hex(text, *size, lower) != digits)
            continue;
        int same = memcmp(data, text, digits) == 0;
        write_hex(text, *size, upper);
        same |= memcmp(data, text, digits) == 0;
        return same && memcmp(data + digits, "\r\n", 2) == 0 && memcmp(data + length - 2, "\r\n", 2) == 0 ? digits + 2 : 0;
    }
    return 0;
}

/* Writes the frame of a payload in its HTTP chunk; its length. */
static size_t write_frame(char *at, const char *payload, uint32_t size)
{
    struct head *head = &heads[size % HEADS];
    if (head->size != size) { /* never 0 */
        uint32_t whole = (uint32_t)(PRELUDE + HEADERS) + size + 4;
        size_t begin = write_hex(head->bytes, whole, lower);
        char *frame = head->bytes + begin + 2;
        memcpy(head->bytes + begin, "\r\n", 2);
        write_word(frame, whole);
        write_word(frame + 4, HEADERS);
        write_word(frame + 8, crc_of(0, frame, 8));
        memcpy(frame + PRELUDE, part_headers, HEADERS);
        head->crc = crc_of(0, frame, PRELUDE + HEADERS);
        head->length = (uint32_t)(begin + 2 + PRELUDE + HEADERS);
        head->size = size;
    }
    memcpy(at, head->bytes, head->length);
    memcpy(at + head->length, payload, size);
    write_word(at + head->length + size, crc_of(head->crc, payload, size));
    memcpy(at + head->length + size + 4, "\r\n", 2);
    return head->length + size + 6;
}

/* Whether nothing of ours waits before the socket, and the socket is still the client's: 1, 0, or -1 with an error. */
static int is_free(Tokens *self)
{
    PyObject *closing = PyObject_CallMethodNoArgs(self->client, is_closing);
    int free = closing == NULL ? -1 : !PyObject_IsTrue(closing);
    Py_XDECREF(closing);
    if (free != 1)
        return free;
    PyObject *waiting = PyObject_CallMethodNoArgs(self->client, buffer_size);
    free = waiting == NULL ? -1 : PyLong_AsSsize_t(waiting) == 0;
    Py_XDECREF(waiting);
    return PyErr_Occurred() ? -1 : free;
}

static int send_frame(Tokens *self, const char *frame, size_t length)
{
    size_t sent = 0;
    int free = self->fd < 0 ? 0 : is_free(self);
    if (free < 0)
        return -1;
    if (free) {
        ssize_t wrote = send(self->fd, frame, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent = wrote < 0 ? 0 : (size_t)wrote; /* the transport meets the same error, and knows what to do about it */
    }
    if (sent == length)
        return 0;
    PyObject *rest = PyBytes_FromStringAndSize(frame + sent, (Py_ssize_t)(length - sent)), *client = self->client;
    Py_INCREF(client); /* writing may end the stream */
    PyObject *done = rest == NULL ? NULL : PyObject_CallMethodOneArg(client, write_name, rest);
    Py_DECREF(client);
    Py_XDECREF(rest);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *tokens_data_received(Tokens *self, PyObject *data)
{
    char frame[LONGEST_PART + 256];
    uint32_t size;
    if (self->at_chunk && self->client != NULL && PyBytes_CheckExact(data)) {
        const char *bytes = PyBytes_AS_STRING(data);
        size_t begin = chunk_at(bytes, (size_t)PyBytes_GET_SIZE(data), &size);
        if (begin) {
            self->parts++;
            self->bytes += size;
            if (send_frame(self, frame, write_frame(frame, bytes + begin, size)) < 0)
                return NULL;
            Py_RETURN_NONE;
        }
    }
    return PyObject_CallMethodOneArg((PyObject *)self, received, data);
}

static int add_to(PyObject *note, PyObject *name, Py_ssize_t more)
{
    PyObject *before = PyObject_GetAttr(note, name), *count = PyLong_FromSsize_t(more);
    PyObject *sum = before && count ? PyNumber_Add(before, count) : NULL;
    int done = sum == NULL ? -1 : PyObject_SetAttr(note, name, sum);
    Py_XDECREF(before);
    Py_XDECREF(count);
    Py_XDECREF(sum);
    return done;
}

static PyObject *tokens_close(Tokens *self, PyObject *unused)
{
    PyObject *note = self->note;
    Py_ssize_t parts = self->parts, bytes = self->bytes;
    self->note = NULL;
    self->parts = self->bytes = 0;
    self->fd = -1;
    Py_CLEAR(self->client);
    int done = note == NULL || parts == 0 || (add_to(note, parts_name, parts) == 0 && add_to(note, bytes_name, bytes) == 0);
    Py_XDECREF(note);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *tokens_open(Tokens *self, PyObject *args)
{
    PyObject *client, *note;
    int fd;
    if (!PyArg_ParseTuple(args, "OiO:open_tokens", &client, &fd, &note))
        return NULL;
    PyObject *closed = tokens_close(self, NULL);
    if (closed == NULL)
        return NULL;
    Py_DECREF(closed);
    Py_INCREF(client);
    Py_INCREF(note);
    self->client = client;
    self->note = note;
    self->fd = fd;
    Py_RETURN_NONE;
}

static int tokens_traverse(Tokens *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->client);
    Py_VISIT(self->note);
    return 0;
}

static int tokens_clear(Tokens *self)
{
    Py_CLEAR(self->client);
    Py_CLEAR(self->note);
    return 0;
}

static PyObject *tokens_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Tokens *self = (Tokens *)type->tp_alloc(type, 0);
    if (self != NULL)
        self->fd = -1;
    return (PyObject *)self;
}

static void tokens_dealloc(Tokens *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    tokens_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

int tokens_ready(void)
{
    crc_ready();
    received = PyUnicode_InternFromString("received");
    write_name = PyUnicode_InternFromString("write");
    is_closing = PyUnicode_InternFromString("is_closing");
    buffer_size = PyUnicode_InternFromString("get_write_buffer_size");
    parts_name = PyUnicode_InternFromString("parts");
    bytes_name = PyUnicode_InternFromString("bytes_out");
    return received && write_name && is_closing && buffer_size && parts_name && bytes_name ? 0 : -1;
}

static PyMethodDef methods[] = {
    {"data_received", (PyCFunction)tokens_data_received, METH_O, NULL},
    {"open_tokens", (PyCFunction)tokens_open, METH_VARARGS, NULL},
    {"close_tokens", (PyCFunction)tokens_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyMemberDef members[] = {
    {"at_chunk", T_BOOL, offsetof(Tokens, at_chunk), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot slots[] = {
    {Py_tp_new, tokens_new},         {Py_tp_dealloc, tokens_dealloc}, {Py_tp_traverse, tokens_traverse},
    {Py_tp_clear, tokens_clear},     {Py_tp_methods, methods},        {Py_tp_members, members},
    {0, NULL},
};
PyType_Spec tokens_spec = {
    "penstock._speed.native.Tokens",
    sizeof(Tokens),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    slots,
};
