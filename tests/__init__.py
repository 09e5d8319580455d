"""The run-time checks of the tests: tensor shapes and types, as the signatures of functions say.

`check_signatures` is jaxtyping's import hook for what speaks of tensors: a function whose signature
names an array of jaxtyping's, a class with such a field. The rest is mypy's to check; decorated as
well, it would take a sixth of the time. Functions within functions are left alone: they
would be decorated anew at every call of the outer one.
"""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

from beartype import BeartypeConf, beartype
from jaxtyping import _import_hook as hook
from jaxtyping import install_import_hook

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""The checker: beartype, with ints allowed where floats are asked."""


class SignaturesWithArrays(hook.JaxtypingTransformer):
    """Decorates what names an array, and nothing else."""

    arrays: re.Pattern[str]
    """What an annotation says that names one: jaxtyping's types and the names given to them."""

    def names_an_array(self, annotations: list[ast.expr | None]) -> bool:
        return any(self.arrays.search(ast.unparse(it)) for it in annotations if it is not None)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if any(isinstance(parent, ast.FunctionDef) for parent in self._parents):
            return node
        arguments = [each.annotation for each in ast.walk(node.args) if isinstance(each, ast.arg)]
        if not self.names_an_array([*arguments, node.returns]):
            return node
        return super().visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        fields = [field.annotation for field in node.body if isinstance(field, ast.AnnAssign)]
        if self.names_an_array(fields):
            return super().visit_ClassDef(node)
        self._parents.append(node)
        self.generic_visit(node)
        self._parents.pop()
        return node


def check_signatures(package: str) -> None:
    """Check the signatures of a package that is not imported yet, at every call."""
    (folder,) = find_spec(package).submodule_search_locations
    text = "\n".join(file.read_text(encoding="utf-8") for file in Path(folder).rglob("*.py"))
    imported = re.findall(r"from jaxtyping import ([\w, ]+)", text)
    types = {name for names in imported for name in names.split(", ")}
    named = re.findall(rf"^(\w+) = .*\b(?:{'|'.join(types)})\[", text, flags=re.MULTILINE)
    SignaturesWithArrays.arrays = re.compile(rf"\b(?:{'|'.join({*types, *named})})\b")
    hook.JaxtypingTransformer = SignaturesWithArrays
    # The hook keeps what it compiled under the checker's name: not that of the plain hook.
    install_import_hook(package, "tests.checker.__call__")
