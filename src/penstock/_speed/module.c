/* The compiled twin as a module. What each function does stands where it is defined; native.pyi has the types. */
#include "native.h"

int tokens_ready(void);

static PyMethodDef functions[] = {
    {"request_head", (PyCFunction)(void (*)(void))native_request_head, METH_FASTCALL, NULL},
    {"whole_answer", native_whole_answer, METH_O, NULL},
    {"container_head", (PyCFunction)(void (*)(void))native_container_head, METH_FASTCALL, NULL},
    {"claim", native_claim, METH_O, NULL},
    {"hash_plainly", native_hash_plainly, METH_O, NULL},
    {"digest", native_digest, METH_O, NULL},
    {"keyed", native_keyed, METH_O, NULL},
    {"signed", (PyCFunction)(void (*)(void))native_signed, METH_FASTCALL, NULL},
    {"access_line", (PyCFunction)(void (*)(void))native_access_line, METH_FASTCALL, NULL},
    {"covered", (PyCFunction)(void (*)(void))native_covered, METH_FASTCALL, NULL},
    {"silent", native_silent, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "native", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_native(void)
{
    sha256_choose(0);
    PyObject *module = PyModule_Create(&definition);
    PyObject *type = module ? PyType_FromSpec(&tokens_spec) : NULL;
    if (type == NULL || heads_ready() < 0 || tokens_ready() < 0 || PyModule_AddObjectRef(module, "Tokens", type) < 0)
        Py_CLEAR(module);
    Py_XDECREF(type);
    return module;
}
