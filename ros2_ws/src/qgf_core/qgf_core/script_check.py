# SPDX-License-Identifier: Apache-2.0
"""What the TorchScript of a policy may say. TorchScript is code, and loading it may run some: so it is read first.

Allow-lists throughout: of characters, syntax, operators and functions defined. A script that says anything else is
refused, harmless or not.
"""

from __future__ import annotations

import ast
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
    """What stands in a source that should not; "" if nothing does."""
    for node in ast.walk(tree):
        if not isinstance(node, _SYNTAX):
            return f"contains '{type(node).__name__}'"
    scopes: list[ast.stmt] = []
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            bases = [ast.unparse(base) for base in statement.bases]
            if statement.decorator_list or statement.keywords or bases != ["Module"]:
                return f"defines '{statement.name}', no Module"
            scopes += statement.body
        else:
            scopes.append(statement)
            if not isinstance(statement, ast.FunctionDef):
                return "does more than define"
    for scope in scopes:
        if isinstance(scope, ast.FunctionDef) and (scope.name not in _DEFINITIONS or scope.decorator_list):
            return f"defines '{scope.name}'"
        problem = _find_problem_in(scope)
        if problem:
            return problem
    return ""


def _find_problem_in(scope: ast.stmt) -> str:
    """The same in a function or in a statement of a class."""
    in_place: set[int] = set()  # names of namespaces that stand where they may
    aliases: set[str] = set()
    for node in ast.walk(scope):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node is not scope:
            return f"defines '{node.name}' within something else"
        if isinstance(node, ast.FunctionDef):
            types = [node.returns, *(argument.annotation for argument in node.args.args)]
            in_place.update(id(name) for hint in types if hint is not None for name in ast.walk(hint))
        elif isinstance(node, ast.AnnAssign):
            in_place.update(id(name) for name in ast.walk(node.annotation))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__annotations__["):
            in_place.update(id(name) for name in ast.walk(node.value))
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and _is_functional(_chain(node.value)):
            in_place.update(id(name) for name in ast.walk(node.value))
            target = node.targets[0]
            if isinstance(target, ast.Name):  # torch shortens long names by _0 = __torch__.torch. ... .layer_norm
                aliases.add(target.id)
                in_place.add(id(target))
        elif isinstance(node, ast.Call) and _is_allowed_call(_chain(node.func)):
            in_place.update(id(name) for name in ast.walk(node.func))
            if _chain(node.func) == ["annotate"] and node.args:
                in_place.update(id(name) for name in ast.walk(node.args[0]))
    others = {node.arg for node in ast.walk(scope) if isinstance(node, ast.arg)}
    names = [node for node in ast.walk(scope) if isinstance(node, ast.Name) and id(node) not in in_place]
    others.update(name.id for name in names if isinstance(name.ctx, ast.Store))
    renamed = (aliases | others) & (_NAMESPACES | _PLAIN_CALLS)
    if renamed:
        return f"renames '{min(renamed)}'"
    for node in ast.walk(scope):
        if isinstance(node, ast.Call):
            chain = _chain(node.func)
            if not _is_allowed_call(chain) and not (len(chain) == 1 and chain[0] in aliases - others):
                return f"calls '{ast.unparse(node.func)[:100]}'"
    passed_on = {name.id for name in names} & _NAMESPACES  # an operator given another name could be called by it
    return f"passes on '{min(passed_on)}'" if passed_on else ""


def _chain(expression: ast.expr) -> list[str]:
    """["a", "b", "c"] for a.b.c; empty for anything else."""
    chain: list[str] = []
    while isinstance(expression, ast.Attribute):
        chain.insert(0, expression.attr)
        expression = expression.value
    return [expression.id, *chain] if isinstance(expression, ast.Name) else []


def _is_functional(chain: list[str]) -> bool:
    """Of torch.nn.functional: its definition stands in the archive and is checked as well."""
    return chain[:-1] == _FUNCTIONAL and chain[-1] in ALLOWED_OPERATORS


def _is_allowed_call(chain: list[str]) -> bool:
    if len(chain) <= 1:
        return chain != [] and chain[0] in _PLAIN_CALLS
    if chain[:-1] == ["torch"]:
        return chain[-1] in ALLOWED_OPERATORS
    # A submodule's forward, through self or a local variable, never a namespace of operators or classes.
    return _is_functional(chain) or (chain[-1] == "forward" and chain[0] not in _NAMESPACES)
