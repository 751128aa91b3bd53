"""`djl-test-model`: one request to a handler, without a server.

Owns the command line. The handler runs in this process, with the first call before the request, as in a server.
"""

from __future__ import annotations

import argparse
import os
import sys

from penstock.servers.lmi.worker import handler


def main() -> None:
    """Exit status 1 when the handler answers with an error."""
    parser = argparse.ArgumentParser(prog="djl-test-model", description=__doc__)
    parser.add_argument("-m", "--model-dir", default=".", help="where the handler lies")
    parser.add_argument("-e", "--entry-point", default="model.py", help="the handler's file or module")
    parser.add_argument("-f", "--handler", default="handle", help="the handler's function")
    parser.add_argument("-i", "--input", required=True, nargs="+", help="[key=]file or [key=]text")
    parser.add_argument("-p", "--parameters", nargs="+", default=[], help="name=value, as a model's options")
    options = parser.parse_args()
    sys.meta_path.insert(0, handler.DjlPython())
    sys.meta_path.append(handler.NotPart())
    from penstock.servers.lmi.worker.api import Input, create_request

    request = create_request(options.input, options.parameters)
    request.function_name = options.handler
    os.chdir(options.model_dir)
    sys.path.insert(0, os.getcwd())
    module = handler.load_module(os.getcwd(), options.entry_point)
    function = handler.function_of(module, options.entry_point, options.handler)
    first = Input()
    first.properties = {**request.properties, "model_dir": os.getcwd()}
    outputs = handler.call(function, first)
    if outputs.code < 300:
        outputs = handler.call(function, request)
    print(f"output: {outputs}")
    for value in outputs.content.get_values():
        print(bytes(value).decode("utf-8", "backslashreplace"))
    for item in outputs.stream_content or ():
        print(outputs.stream_piece(item).decode("utf-8", "backslashreplace"))
    sys.exit(outputs.code >= 300)


if __name__ == "__main__":
    main()
