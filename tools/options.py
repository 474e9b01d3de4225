"""Write `RegisterOptions` in `somareg/config/arguments.py` from the fields of `RegisterConfig`: `make options`.

Editors and type checkers read code and run none, so the keyword arguments of `register` must stand there as text. A
test fails while they are not what this writes.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[1] / "src" / "somareg" / "config"
OPTIONS, ARGUMENTS = CONFIG / "options.py", CONFIG / "arguments.py"
BLOCK = re.compile(r"(# --- written by `make options` ---\n).*?(# --- end of what `make options` writes ---\n)", re.S)


def written(arguments: str, options: str) -> str:
    """The source of `somareg.config.arguments` with `RegisterOptions` as `RegisterConfig` in `options` says."""
    model = next(
        node for node in ast.parse(options).body if isinstance(node, ast.ClassDef) and node.name == "RegisterConfig"
    )
    lines = [
        "class RegisterOptions(TypedDict, total=False):",
        '    """The fields of `RegisterConfig` as keyword arguments; `docs/api.md` describes them."""',
        "",
    ]
    fields = [node for node in model.body if isinstance(node, ast.AnnAssign)]
    lines += [f"    {ast.unparse(field.target)}: {_accepted(field)}" for field in fields]
    return BLOCK.sub(lambda found: "\n\n".join([found[1], "\n".join(lines) + "\n", found[2]]), arguments)


def _accepted(field: ast.AnnAssign) -> str:
    """The annotation of what callers may give: that of the field, or what its `option(accepts=...)` says."""
    told = field.value.keywords if isinstance(field.value, ast.Call) else []
    accepts = next((ast.literal_eval(each.value) for each in told if each.arg == "accepts"), None)
    return accepts or ast.unparse(field.annotation)


if __name__ == "__main__":
    made = written(ARGUMENTS.read_text(encoding="utf-8"), OPTIONS.read_text(encoding="utf-8"))
    ARGUMENTS.write_text(made, encoding="utf-8")
