"""What a model.py is, judged without running it: a handler, or formatters round the server's own text generation.

Owns the rule. It must never import a script: that is done in a process of its own.
"""

from __future__ import annotations

import ast
from pathlib import Path

_FORMATS = {"input_formatter", "output_formatter"}
_HANDLES = {"init_handler", "prediction_handler"}
_FUNCTIONS = {"handle", "model_fn", "input_fn", "predict_fn", "output_fn"}


def only_formats(file: Path, handler: str = "handle") -> bool:
    """Whether it has an `@input_formatter` or an `@output_formatter`, and nothing that answers a request by itself.

    What can't be parsed counts as a handler, whose process then says what is wrong.
    """
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    marks = {mark for node in body for mark in _marks(node)}
    names = {name for node in body for name in _names(node)}
    return bool(marks & _FORMATS) and not marks & _HANDLES and not names & {*_FUNCTIONS, handler, "*"}


def imports(file: Path, name: str) -> bool:
    """Whether the script imports a module of that name, anywhere in it."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return any(each.partition(".")[0] == name for each in found)


def _marks(node: ast.stmt) -> set[str]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    return {decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")
            for decorator in node.decorator_list}  # fmt: skip


def _names(node: ast.stmt) -> set[str]:
    """What a statement at the top of a module makes a name of that module."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return {alias.asname or alias.name for alias in aliases}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()
