"""Mutants of Python code: what comes out if one thing in it is another.

Every mutant is the whole source again, with one change in its syntax tree: an operator, a sign, a
constant, a name, the order of arguments, an argument or a term that is left out, a call undone, a
statement that is gone.
"""

import ast
import copy
from collections.abc import Iterator

OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult, ast.Div),
    ast.Pow: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt, ast.NotEq),
    ast.Gt: (ast.GtE, ast.Lt, ast.NotEq),
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
TWINS = {  # functions that are taken for each other
    "sum": ("mean", "max"), "mean": ("sum", "max"), "exp": ("exp2", "expm1"), "sqrt": ("square",),
    "square": ("abs", "sqrt"), "cos": ("sin",), "sin": ("cos",), "std": ("var",), "prod": ("sum",),
    "tril": ("triu",), "ones": ("zeros",), "full": ("zeros",), "softmax": ("log_softmax",),
    "silu": ("relu", "gelu", "sigmoid"), "min": ("max",), "norm1": ("norm2",),
    "norm2": ("norm1",), "conv1": ("conv2",), "conv2": ("conv1",), "svd": ("eigvals",),
}  # fmt: skip
TICK = "_tick"  # called in each loop, so that none is endless


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """What was changed, and the source with this change; each once."""
    tree = _undocumented(ast.parse(source))
    seen = {ast.unparse(tree)}
    for number, node in enumerate(ast.walk(tree)):
        for what, change in _changes(node, tree):
            mutant = copy.deepcopy(tree)
            twin = next(n for i, n in enumerate(ast.walk(mutant)) if i == number)
            change(twin)
            text = ast.unparse(ast.fix_missing_locations(mutant))
            if text not in seen:
                seen.add(text)
                yield f"line {getattr(node, 'lineno', 0)}: {what}", text


def ticking(source: str) -> ast.Module:
    """The code with a call of `_tick` at the head of each loop's body."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.While):
            node.body.insert(0, ast.parse(f"{TICK}()").body[0])
    return ast.fix_missing_locations(tree)


def _undocumented(tree):
    """Without docstrings, which may say anything."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            del node.body[0]
    return tree


def _changes(node, tree):
    """Changes of one node, each as words and a function that makes it in a copy."""
    if isinstance(node, ast.BinOp | ast.AugAssign):
        yield from _of_operator(node)
    if isinstance(node, ast.expr):
        yield from _of_expression(node, tree)
    if isinstance(node, ast.Compare):
        for kind in COMPARISONS.get(type(node.ops[0]), ()):
            yield f"{kind.__name__}", lambda n, kind=kind: n.ops.__setitem__(0, kind())
    if isinstance(node, ast.Call):
        yield from _of_call(node)
    if isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Load):
        for i in range(len(node.elts)):
            yield f"without element {i}", lambda n, i=i: n.elts.pop(i)
            if i:
                yield f"elements {i - 1}, {i} exchanged", lambda n, i=i: _exchange(n.elts, i)
    if isinstance(node, ast.Slice):
        for part in ("lower", "upper", "step"):
            if getattr(node, part) is not None:
                yield f"slice without {part}", lambda n, part=part: setattr(n, part, None)
    if isinstance(node, ast.comprehension) and node.ifs:
        yield "without its condition", lambda n: n.ifs.clear()
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        if isinstance(block, list):
            yield from _of_block(block, field)


def _of_operator(node):
    for kind in OPERATORS.get(type(node.op), ()):
        yield f"{kind.__name__}", lambda n, kind=kind: setattr(n, "op", kind())
    if isinstance(node, ast.BinOp):
        if not isinstance(node.op, ast.Add | ast.Mult):  # of numbers, which commute
            yield "sides exchanged", _sides
        yield "left side alone", lambda n: _become(n, n.left)
        yield "right side alone", lambda n: _become(n, n.right)


def _of_expression(node, tree):
    if isinstance(node, ast.Constant):
        for value in _others(node.value):
            yield f"{value!r}", lambda n, value=value: setattr(n, "value", value)
    elif isinstance(node, ast.UnaryOp):
        yield "sign dropped", lambda n: _become(n, n.operand)
    elif isinstance(node, ast.IfExp):
        yield "body alone", lambda n: _become(n, n.body)
        yield "else alone", lambda n: _become(n, n.orelse)
    elif isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            yield f"without condition {i}", lambda n, i=i: n.values.pop(i)
    elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and not _stored(node):
        yield from _of_name(node, tree)
    if isinstance(node, ast.Subscript | ast.BinOp | ast.Call) and not _stored(node):
        yield "negated", lambda n: _become(n, ast.UnaryOp(ast.USub(), copy.deepcopy(n)))


def _of_name(node, tree):
    if isinstance(node, ast.Name):
        variables = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        stored = (n for n in ast.walk(tree) if isinstance(n, ast.Name) and _stored(n))
        variables |= {n.id for n in stored}
        if node.id in variables:
            for other in sorted(variables - {node.id}):
                yield f"{other} for {node.id}", lambda n, other=other: setattr(n, "id", other)
    elif isinstance(node, ast.Attribute):
        for other in TWINS.get(node.attr, ()):
            yield f"{other} for {node.attr}", lambda n, other=other: setattr(n, "attr", other)
        if node.attr == "T":
            yield "not transposed", lambda n: _become(n, n.value)
    else:
        yield "the whole of it", lambda n: _become(n, n.value)


def _of_call(node):
    for i in range(len(node.args)):
        yield f"argument {i} alone", lambda n, i=i: _become(n, n.args[i])
        if len(node.args) > 1:
            yield f"without argument {i}", lambda n, i=i: n.args.pop(i)
        if i:
            yield f"arguments {i - 1}, {i} exchanged", lambda n, i=i: _exchange(n.args, i)
    for i in range(len(node.keywords)):
        yield f"without {node.keywords[i].arg}", lambda n, i=i: n.keywords.pop(i)
    if isinstance(node.func, ast.Attribute):
        yield f"without .{node.func.attr}()", lambda n: _become(n, n.func.value)


def _of_block(block, field):
    for i, statement in enumerate(block):
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr | ast.If | ast.For):
            yield f"no statement {i} in {field}", lambda n, i=i: _without(getattr(n, field), i)
        if isinstance(statement, ast.If):
            yield f"always {i}", lambda n, i=i: _always(getattr(n, field), i)


def _others(value):
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1, value - 1, -value) if value else (1, -1)
    if isinstance(value, float):
        return (value + 1, value - 1, 2 * value, value / 2, -value, 1.0)
    if isinstance(value, str):
        return (value + "s", value[:-1]) if value else ("a",)
    return ()


def _stored(node) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)


def _become(node, other) -> None:
    """A node in its place becomes another, kind and all."""
    other = copy.deepcopy(other)
    if isinstance(other, ast.Starred):
        other = other.value
    node.__class__ = other.__class__
    node.__dict__ = other.__dict__


def _sides(node) -> None:
    node.left, node.right = node.right, node.left


def _exchange(values, i) -> None:
    values[i - 1], values[i] = values[i], values[i - 1]


def _without(block, i) -> None:
    block[i] = ast.Pass()


def _always(block, i) -> None:
    block[i : i + 1] = block[i].body
