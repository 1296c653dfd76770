# SPDX-License-Identifier: Apache-2.0
"""What the TorchScript of a policy may say. TorchScript is code, and loading it may run some: so it is read first.

Allow-lists throughout: of syntax, of operators, of functions defined, of what the pickles name. A script that says
anything else is refused, harmless or not.
"""

from __future__ import annotations

import ast
import pickletools
import re

from qgf_core.errors import BundleError

# What an actor with a frozen normaliser needs, and nothing that touches files, processes or unbounded memory.
ALLOWED_OPERATORS = frozenset({
    "add", "addmm", "cat", "clamp", "div", "elu", "elu_", "layer_norm", "leaky_relu", "leaky_relu_", "linear", "matmul",
    "mish", "mish_", "mm", "mul", "neg", "relu", "relu_", "rsub", "sigmoid", "silu", "silu_", "slice", "softplus",
    "squeeze", "sub", "t", "tanh", "transpose", "unsqueeze",
})
_DEFINITIONS = ALLOWED_OPERATORS | {"forward", "__len__"}  # torch writes __len__ for a Sequential
_PLAIN_CALLS = frozenset({"annotate", "getattr"})  # getattr(self, "0"): a member whose name is no identifier
_NAMESPACES = frozenset({"torch", "__torch__", "ops"})
_FUNCTIONAL = ["__torch__", "torch", "nn", "functional"]
_SYNTAX = (
    ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Assign, ast.AnnAssign, ast.Expr,
    ast.If, ast.IfExp, ast.Pass, ast.Call, ast.Attribute, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Subscript,
    ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.keyword, ast.expr_context, ast.operator, ast.unaryop,
    ast.boolop, ast.cmpop,
)
# Characters that Python's reader and torch's see alike: no comments, escapes or line ends that only one of them knows.
_PLAIN_TEXT = re.compile(r"[\n\x20-\x22\x24-\x5b\x5d-\x7e]*")

_PICKLE_OPCODES = frozenset({
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT", "BINUNICODE",
    "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK",
    "NEWFALSE", "NEWOBJ", "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "STOP", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3",
})
_PICKLE_GLOBALS = frozenset({
    "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch BoolStorage", "torch DoubleStorage",
    "torch FloatStorage", "torch IntStorage", "torch LongStorage", "torch.jit._pickle build_boollist",
    "torch.jit._pickle build_doublelist", "torch.jit._pickle build_intlist", "torch.jit._pickle build_tensorlist",
    "torch.jit._pickle restore_type_tag",
})
# Classes whose code stands in the archive; not those of C++ libraries, __torch__.torch.classes.
_SCRIPT_CLASS = re.compile(r"__torch__(?!\.torch\.classes\b)(\.[A-Za-z0-9_]+)* [A-Za-z0-9_]+")


def check_script(source: str, path: object) -> None:
    """:raises BundleError: a TorchScript source says anything outside the allow-lists. `path` is for the message."""
    if not _PLAIN_TEXT.fullmatch(source) or '"""' in source or "'''" in source:
        raise BundleError(f"{path}: its code holds characters that a policy does not need; refused")
    try:
        problem = _find_problem(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BundleError(f"{path}: its code cannot be parsed ({error}); export it again") from error
    if problem:
        raise BundleError(f"{path}: its code {problem}, which a policy does not need; refused")


def _find_problem(tree: ast.Module) -> str:
    in_place: set[int] = set()  # names of namespaces that stand where they may
    for node in ast.walk(tree):
        if not isinstance(node, _SYNTAX):
            return f"contains '{type(node).__name__}'"
        if isinstance(node, ast.Module) and not all(isinstance(s, (ast.ClassDef, ast.FunctionDef)) for s in node.body):
            return "does more than define"
        if isinstance(node, ast.ClassDef) and (
                node.decorator_list or node.keywords or [ast.unparse(base) for base in node.bases] != ["Module"]):
            return f"defines '{node.name}', no Module"
        if isinstance(node, ast.FunctionDef):
            if node.name not in _DEFINITIONS or node.decorator_list:
                return f"defines '{node.name}'"
            types = [node.returns, *(argument.annotation for argument in node.args.args)]
            in_place.update(id(name) for hint in types if hint is not None for name in ast.walk(hint))
        elif isinstance(node, ast.AnnAssign):
            in_place.update(id(name) for name in ast.walk(node.annotation))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__annotations__["):
            in_place.update(id(name) for name in ast.walk(node.value))
        elif isinstance(node, ast.Call):
            if not _is_allowed_call(node.func):
                return f"calls '{ast.unparse(node.func)[:100]}'"
            in_place.update(id(name) for name in ast.walk(node.func))
            if ast.unparse(node.func) == "annotate" and node.args:
                in_place.update(id(name) for name in ast.walk(node.args[0]))
        elif isinstance(node, ast.arg) and node.arg in _NAMESPACES | _PLAIN_CALLS:
            return f"renames '{node.arg}'"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in _NAMESPACES | _PLAIN_CALLS:
            return f"renames '{node.id}'"
    for node in ast.walk(tree):  # an operator given another name would be called by that name
        if isinstance(node, ast.Name) and node.id in _NAMESPACES and id(node) not in in_place:
            return f"passes on '{node.id}'"
    return ""


def _is_allowed_call(function: ast.expr) -> bool:
    chain: list[str] = []
    while isinstance(function, ast.Attribute):
        chain.insert(0, function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return False
    chain.insert(0, function.id)
    if chain[:-1] in (["torch"], _FUNCTIONAL):  # a functional's definition stands in the archive and is checked as well
        return chain[-1] in ALLOWED_OPERATORS
    if len(chain) == 1:
        return chain[0] in _PLAIN_CALLS
    # A submodule's forward, through self or a local variable, never a namespace of operators or classes.
    return chain[-1] == "forward" and chain[0] not in _NAMESPACES


def check_pickle(data: bytes, path: object) -> None:
    """Reads a pickle's opcodes without executing them.

    :raises BundleError: it names a class or function that a policy's weights do not need. `path` is for the message.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _PICKLE_OPCODES:
                raise BundleError(f"{path}: a pickle in it holds the opcode {opcode.name}; refused")
            name = str(argument)
            if opcode.name == "GLOBAL" and name not in _PICKLE_GLOBALS and not _SCRIPT_CLASS.fullmatch(name):
                raise BundleError(f"{path}: a pickle in it names {name[:100]!r}; refused")
    except (ValueError, LookupError, OverflowError) as error:
        raise BundleError(f"{path}: a pickle in it is malformed ({error}); export it again") from error
