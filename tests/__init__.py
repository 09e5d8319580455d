"""The run-time checks of the tests: types and tensor shapes, as the signatures of functions say.

`check_signatures` is jaxtyping's import hook but for functions within functions: those would be
decorated anew at every call of the outer one, which takes longer than the calls themselves.
"""

import ast

from beartype import BeartypeConf, beartype
from jaxtyping import _import_hook as hook
from jaxtyping import install_import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""The checker: beartype, with ints allowed where floats are asked."""


class OutermostFunctions(hook.JaxtypingTransformer):
    """Decorates classes and functions, and leaves what stands inside a function as it is."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if any(isinstance(parent, ast.FunctionDef) for parent in self._parents):
            return node
        return super().visit_FunctionDef(node)


def check_signatures(package: str) -> None:
    """Check the signatures of a package that is not imported yet, at every call."""
    hook.JaxtypingTransformer = OutermostFunctions
    # The hook keeps what it compiled under the checker's name: not that of the plain hook.
    install_import_hook(package, "tests.checked.__call__")
