/* Heads that hold nothing unusual: the twin of gateway/quick.py, and what is written of a request's headers to a container. */
#include "native.h"

enum { TOKEN = 1, VISIBLE = 2, TARGET = 4, HOST = 8 };

static uint8_t kinds[256];

/* Names that come with most heads, made once; the others are made each time. `usual` is 0 for those that are about the connection or
 * about framing: a head with one of them is the parser's. Names are told apart by length and a few characters first. */
static struct {
    const char *text;
    int usual;
    PyObject *name;
} names[] = {
    {"host", 1, NULL},
    {"content-type", 1, NULL},
    {"content-length", 1, NULL},
    {"user-agent", 1, NULL},
    {"authorization", 1, NULL},
    {"x-amz-date", 1, NULL},
    {"accept", 1, NULL},
    {"accept-encoding", 1, NULL},
    {"amz-sdk-invocation-id", 1, NULL},
    {"amz-sdk-request", 1, NULL},
    {"date", 1, NULL},
    {"server", 1, NULL},
    {"x-amz-content-sha256", 1, NULL},
    {"x-amz-security-token", 1, NULL},
    {"x-amz-target", 1, NULL},
    {"x-amzn-sagemaker-accept", 1, NULL},
    {"x-amzn-sagemaker-custom-attributes", 1, NULL},
    {"x-amzn-sagemaker-inference-id", 1, NULL},
    {"x-amzn-sagemaker-session-id", 1, NULL},
    {"connection", 0, NULL},
    {"expect", 0, NULL},
    {"keep-alive", 0, NULL},
    {"proxy-connection", 0, NULL},
    {"te", 0, NULL},
    {"trailer", 0, NULL},
    {"transfer-encoding", 0, NULL},
    {"upgrade", 0, NULL},
};
#define NAMES (sizeof names / sizeof *names)
#define LONGEST_NAME 64
#define LONGEST_FIRST_LINE 511
#define LONGEST_LENGTH 15

static PyObject *content_length, *host, *methods[5];
static const char *const method_texts[5] = {"POST", "GET", "PUT", "DELETE", "HEAD"};

int heads_ready(void)
{
    for (int c = 0; c < 256; c++) {
        int alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        int visible = c > ' ' && c < 127;
        kinds[c] = (uint8_t)((alnum || (visible && strchr("!#$%&'*+.^_`|~-", c)) ? TOKEN : 0) | (visible ? VISIBLE : 0)
                             | (visible && c != '#' ? TARGET : 0)
                             | (alnum || (visible && strchr("._~!$&'()*+;=%[]:-", c)) ? HOST : 0));
    }
    for (size_t i = 0; i < NAMES; i++)
        if (names[i].name == NULL && (names[i].name = PyUnicode_InternFromString(names[i].text)) == NULL)
            return -1;
    for (size_t i = 0; i < 5; i++)
        if (methods[i] == NULL && (methods[i] = PyUnicode_InternFromString(method_texts[i])) == NULL)
            return -1;
    host = names[0].name;
    content_length = names[2].name;
    return 0;
}

static PyObject *text_of(const char *at, Py_ssize_t length)
{
    PyObject *text = PyUnicode_New(length, 127);
    if (text != NULL)
        memcpy(PyUnicode_1BYTE_DATA(text), at, (size_t)length);
    return text;
}

/* A new reference to the name in lower case; NULL without an error where it is an unusual one. */
static PyObject *name_of(const char *at, size_t length)
{
    char lower[LONGEST_NAME + 1];
    for (size_t i = 0; i < length; i++)
        lower[i] = (char)(at[i] >= 'A' && at[i] <= 'Z' ? at[i] + 32 : at[i]);
    lower[length] = 0;
    for (size_t i = 0; i < NAMES; i++)
        if (names[i].text[0] == lower[0] && strcmp(names[i].text, lower) == 0) {
            if (!names[i].usual)
                return NULL;
            Py_INCREF(names[i].name);
            return names[i].name;
        }
    return text_of(lower, (Py_ssize_t)length);
}

/* Puts one line without its end into `headers`. 1 done, 0 not of the usual form, -1 with an error. */
static int read_line(PyObject *headers, const char *at, const char *end)
{
    const char *colon = at;
    while (colon < end && (kinds[(uint8_t)*colon] & TOKEN))
        colon++;
    size_t length = (size_t)(colon - at);
    if (colon == end || *colon != ':' || length == 0 || length > LONGEST_NAME)
        return 0;
    const char *value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    if (value == end || end[-1] == ' ')
        return 0;
    for (const char *c = value; c < end; c++)
        if (!(kinds[(uint8_t)*c] & VISIBLE) && *c != ' ')
            return 0;
    PyObject *name = name_of(at, length), *text = NULL;
    int done = 0;
    if (name != NULL && (text = text_of(value, end - value)) != NULL)
        done = PyDict_SetItem(headers, name, text) < 0 ? -1 : 1;
    else if (PyErr_Occurred())
        done = -1;
    Py_XDECREF(name);
    Py_XDECREF(text);
    return done;
}

/* The end of the line that begins `at`: where its CR stands. NULL where there is none. */
static const char *line_end(const char *at, const char *end)
{
    const char *cr = memchr(at, '\r', (size_t)(end - at));
    return cr != NULL && cr + 1 < end && cr[1] == '\n' ? cr : NULL;
}

/* All lines from `*at` to the empty one, after which `*at` is moved. NULL without an error where one is not of the usual form. */
static PyObject *read_lines(const char **at, const char *end)
{
    PyObject *headers = PyDict_New();
    const char *line = *at, *stop = line;
    Py_ssize_t lines = 0;
    while (headers != NULL) {
        stop = line_end(line, end);
        if (stop == line)
            break;
        int done = stop == NULL ? 0 : read_line(headers, line, stop);
        if (done <= 0)
            Py_CLEAR(headers);
        else
            line = stop + 2;
        lines++;
    }
    if (headers != NULL && PyDict_GET_SIZE(headers) != lines)
        Py_CLEAR(headers); /* a name came twice */
    if (headers != NULL)
        *at = stop + 2;
    return headers;
}

static int asks_the_twin(PyObject *headers)
{
    Py_XDECREF(headers);
    return !PyErr_Occurred();
}

/* The number that Content-Length says, `absent` where there is none, -1 where it is not of the usual form. */
static int64_t length_of(PyObject *headers, int64_t absent)
{
    PyObject *text = PyDict_GetItemWithError(headers, content_length);
    if (text == NULL)
        return PyErr_Occurred() ? -1 : absent;
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    const Py_UCS1 *digits = PyUnicode_1BYTE_DATA(text);
    int64_t number = 0;
    if (length > LONGEST_LENGTH)
        return -1;
    for (Py_ssize_t i = 0; i < length; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return -1;
        number = number * 10 + (digits[i] - '0');
    }
    return number;
}

static int is_host(PyObject *headers)
{
    PyObject *text = PyDict_GetItemWithError(headers, host);
    if (text == NULL)
        return 0;
    for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(text); i++)
        if (!(kinds[PyUnicode_1BYTE_DATA(text)[i]] & HOST))
            return 0;
    return 1;
}

/* request_head(data, longest) -> (method, path, query, headers, where the lines begin, where the body begins, Content-Length) | None */
PyObject *native_request_head(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_CheckExact(args[0]))
        return PyErr_Format(PyExc_TypeError, "request_head takes bytes and an int");
    Py_ssize_t longest = PyLong_AsSsize_t(args[1]);
    if (longest == -1 && PyErr_Occurred())
        return NULL;
    const char *data = PyBytes_AS_STRING(args[0]), *end = data + PyBytes_GET_SIZE(args[0]);
    const char *stop = line_end(data, end), *target = NULL;
    PyObject *method = NULL;
    if (stop == NULL || stop - data > LONGEST_FIRST_LINE)
        Py_RETURN_NONE;
    for (size_t i = 0; i < 5 && method == NULL; i++) {
        size_t length = strlen(method_texts[i]);
        if ((size_t)(stop - data) > length && memcmp(data, method_texts[i], length) == 0 && data[length] == ' ') {
            method = methods[i];
            target = data + length + 1;
        }
    }
    static const char version[] = " HTTP/1.1";
    if (method == NULL || stop - target < (Py_ssize_t)sizeof version)
        Py_RETURN_NONE;
    const char *target_end = stop - (sizeof version - 1), *question = NULL;
    if (*target != '/' || memcmp(target_end, version, sizeof version - 1) != 0)
        Py_RETURN_NONE;
    for (const char *c = target; c < target_end; c++) {
        if (!(kinds[(uint8_t)*c] & TARGET))
            Py_RETURN_NONE;
        if (*c == '?' && question == NULL)
            question = c;
    }
    const char *body = stop + 2;
    PyObject *headers = read_lines(&body, end);
    if (headers == NULL || body - 4 - data > longest || body - 2 == stop + 2 || !is_host(headers)) {
        if (asks_the_twin(headers))
            Py_RETURN_NONE;
        return NULL;
    }
    int64_t length = length_of(headers, 0);
    if (length < 0) {
        if (asks_the_twin(headers))
            Py_RETURN_NONE;
        return NULL;
    }
    const char *path_end = question ? question : target_end, *query = question ? question + 1 : target_end;
    return Py_BuildValue("(Os#s#NnnL)", method, target, (Py_ssize_t)(path_end - target), query, (Py_ssize_t)(target_end - query), headers,
                         (Py_ssize_t)(stop + 2 - data), (Py_ssize_t)(body - data), (long long)length);
}

/* whole_answer(data) -> (status, headers, body) | None */
PyObject *native_whole_answer(PyObject *module, PyObject *arg)
{
    if (!PyBytes_CheckExact(arg))
        return PyErr_Format(PyExc_TypeError, "whole_answer takes bytes");
    const char *data = PyBytes_AS_STRING(arg), *end = data + PyBytes_GET_SIZE(arg), *stop = line_end(data, end);
    static const char version[] = "HTTP/1.1 ";
    if (stop == NULL || stop - data > LONGEST_FIRST_LINE || stop - data < (Py_ssize_t)sizeof version + 3 || memcmp(data, version, sizeof version - 1) != 0)
        Py_RETURN_NONE;
    const char *digits = data + sizeof version - 1;
    int status = 0;
    for (int i = 0; i < 3; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            Py_RETURN_NONE;
        status = status * 10 + (digits[i] - '0');
    }
    if (status < 200 || status > 599 || status == 204 || status == 304 || digits[3] != ' ')
        Py_RETURN_NONE;
    for (const char *c = digits + 4; c < stop; c++)
        if (!(kinds[(uint8_t)*c] & VISIBLE) && *c != ' ' && *c != '\t')
            Py_RETURN_NONE;
    const char *body = stop + 2;
    PyObject *headers = read_lines(&body, end);
    if (headers == NULL || length_of(headers, -1) != end - body) {
        if (asks_the_twin(headers))
            Py_RETURN_NONE;
        return NULL;
    }
    return Py_BuildValue("(iNy#)", status, headers, body, (Py_ssize_t)(end - body));
}

/* container_head(headers, rules, length) -> bytes | None: the twin of headers.to_container, None also where a value is too long */
PyObject *native_container_head(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyDict_Check(args[0]) || !PyDict_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "container_head takes two dicts and an int");
    Py_ssize_t length = PyLong_AsSsize_t(args[2]), at = 0;
    if (length == -1 && PyErr_Occurred())
        return NULL;
    char room[4096];
    Out out = {room, room + sizeof room, 0};
    out.at += PyOS_snprintf(room, sizeof room, "Content-Length: %zd\r\n", length);
    PyObject *name, *rule;
    while (PyDict_Next(args[1], &at, &name, &rule)) {
        PyObject *value = PyDict_GetItemWithError(args[0], name);
        if (value == NULL) {
            if (PyErr_Occurred())
                return NULL;
            continue;
        }
        if (!PyTuple_Check(rule) || PyTuple_GET_SIZE(rule) != 3 || !PyUnicode_Check(value))
            return PyErr_Format(PyExc_TypeError, "a rule is a member, a name and a limit");
        Py_ssize_t limit = PyLong_AsSsize_t(PyTuple_GET_ITEM(rule, 2));
        if (limit == -1 && PyErr_Occurred())
            return NULL;
        if (PyUnicode_GET_LENGTH(value) > limit)
            Py_RETURN_NONE;
        out_text(&out, PyTuple_GET_ITEM(rule, 1));
        out_bytes(&out, ": ", 2);
        out_text(&out, value);
        out_bytes(&out, "\r\n", 2);
    }
    out_bytes(&out, "\r\n", 2);
    if (out.full)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(room, out.at - room);
}
