"""Writes a kernel repository: this package's operations, and of the rest what they import.

`torch-ext/` has the source as Hugging Face's kernel-builder takes it, `build/` a copy of it for each kind of
machine, ready to be loaded, whose operators have names of their own. Imports are relative: any number of
builds can be loaded beside each other and beside this package.
"""

from __future__ import annotations

import ast
from base64 import b64encode
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from imagen_fast.errors import InvalidInput
from imagen_fast.integrations.kernels_package import texts

PACKAGE = "imagen_fast"
# Modules that are written from another one's source.
STANDING_IN = {PACKAGE: f"{__package__}.root", f"{PACKAGE}.native": f"{__package__}.native"}


def write(folder: Path | str) -> None:
    """Write a repository that `kernels.get_local_kernel` loads, and `get_kernel` once it is uploaded.

    The same source gives the same repository, byte for byte.

    Args:
        folder: a new or empty one.

    Raises:
        InvalidInput: there is something in it.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise InvalidInput(f"a kernel repository goes into a new or empty folder, not into {folder}")
    files = _package()
    _put(folder, {"build.toml": texts.BUILD, "README.md": texts.CARD})
    _put(folder / "torch-ext" / PACKAGE, files)
    source = sha256("".join(name + files[name] for name in sorted(files)).encode()).hexdigest()[:8]
    for backend in texts.BACKENDS:
        identity = f"_{PACKAGE}_{backend}_{source}"
        build = files | {"_ops.py": texts.operators_namespace(identity)}
        digests = {name: b64encode(sha256(build[name].encode()).digest()).decode() for name in sorted(build)}
        build["metadata.json"] = texts.metadata(identity, backend, digests)
        _put(folder / "build" / f"torch-{backend}", build)


def _put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, newline="\n")


def _package() -> dict[str, str]:
    """The files of the package by their names in it: its root, and all that is imported from there on."""
    files: dict[str, str] = {}
    seen, waiting = set(), [PACKAGE]
    while waiting:
        module = waiting.pop()
        file = None if module in seen else _file(module)
        seen.add(module)
        if file is None:
            continue
        place = _place(module, file)
        files[place], imported = _with_relative_imports(file.read_text(), place)
        waiting += imported
        for table in file.parent.glob("tables/*.json") if file.name == "__init__.py" else ():
            files[str(Path(place).with_name("tables") / table.name)] = table.read_text()
    files["operators.py"] = texts.OPERATORS
    return files


def _file(module: str) -> Path | None:
    """The source of a module; None for a name that is none."""
    try:
        found = find_spec(STANDING_IN.get(module, module))
    except ModuleNotFoundError:  # what it would be in is no package
        return None
    return None if found is None or found.origin is None else Path(found.origin)


def _place(module: str, file: Path) -> str:
    parts = module.split(".")[1:]
    if module == PACKAGE or file.name == "__init__.py":
        return "/".join([*parts, "__init__.py"])
    return "/".join(parts) + ".py"


def _with_relative_imports(text: str, place: str) -> tuple[str, list[str]]:
    """The text of a file at `place` in the package, and modules and names that it imports."""
    lines, imported = text.splitlines(keepends=True), []
    up = "." * len(Path(place).parts)
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        first, *inner = parts = node.module.split(".")
        if first == PACKAGE:
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line.replace(node.module, up + ".".join(inner), 1)
            imported += [".".join(parts[: end + 1]) for end in range(len(parts))]
            imported += [f"{node.module}.{name.name}" for name in node.names]
    return "".join(lines), imported
