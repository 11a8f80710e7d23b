"""The rules of the house that can be read from the source: who imports whom, and what stays out of the library."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARY = REPOSITORY / "keras_ssl"

# A file imports from its own room and from rooms before it.
ORDER = (
    "random",
    "env",
    "checkpoints",
    "losses",
    "optimizers",
    "views",
    "distribution",
    "layers",
    "backbones",
    "conversion",
    "methods",
    "data",
    "evaluation",
    "export",
    "zoo",
    "embedding",
    "pretraining",
    "flags",
    "cli",
)
FILES = sorted(LIBRARY.rglob("*.py"))
DOORS = sorted(
    path for door in ("training", "export") for path in (REPOSITORY / door).rglob("*.py")
)
# The files that the methods are built on may know how views are named; a method may not.
CONTRACT = ("base.py", "training.py")
# Modules that are made of an optional package's classes; what needs one imports it inside a function.
OPTIONAL = dict.fromkeys(sorted((LIBRARY / "conversion/references").glob("torch_*.py")), "torch")
# Import name of a requirement, where it differs from the requirement's own.
IMPORT_NAMES = {"faiss-cpu": "faiss", "pillow": "PIL", "scikit-learn": "sklearn"}


def room_of(path):
    first = path.relative_to(LIBRARY).parts[0]
    return first.removesuffix(".py")


def module_of(path):
    parts = path.relative_to(LIBRARY.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_modules(path, tree=None):
    """Yields (absolute module name, line) of every import in a file, those inside functions included."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(tree or parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            if base == "keras_ssl":
                for alias in node.names:
                    yield f"keras_ssl.{alias.name}", node.lineno
            else:
                yield base, node.lineno


def breaches_of_order(path, tree=None):
    own = room_of(path)
    for name, line in imported_modules(path, tree):
        if not name.startswith("keras_ssl.") or name == "keras_ssl.__version__":
            continue
        room = name.split(".")[1]
        forbidden = own == "methods" and (
            room == "backbones" or (room == "views" and path.name not in CONTRACT)
        )
        if room not in ORDER or ORDER.index(room) > ORDER.index(own) or forbidden:
            yield f"{path.relative_to(REPOSITORY)}:{line} imports {name}"


def test_every_room_has_its_place_in_the_order():
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms <= set(ORDER)


@pytest.mark.parametrize(
    "path, source, breaches",
    [
        ("losses/a.py", "from keras_ssl.layers import heads", 1),
        ("losses/a.py", "def f():\n    import keras_ssl.layers.heads", 1),
        ("losses/a.py", "from ..layers import heads", 1),
        ("losses/a.py", "from .b import c\nfrom keras_ssl import random\nimport numpy", 0),
        ("layers/a.py", "from keras_ssl.losses import b", 0),
        ("methods/a.py", "from keras_ssl.backbones import build", 1),
        ("methods/a.py", "from keras_ssl import views", 1),
        ("methods/base.py", "from keras_ssl import views", 0),
        ("methods/base.py", "from keras_ssl.backbones.vit import ViT", 1),
    ],
)
def test_the_rule_itself(path, source, breaches):
    assert len(list(breaches_of_order(LIBRARY / path, ast.parse(source)))) == breaches


def test_imports_flow_one_way():
    wrong = [
        line
        for path in FILES
        if path != LIBRARY / "__init__.py"
        for line in breaches_of_order(path)
    ]
    assert not wrong, "\n".join(wrong)


def imported_inside_functions(tree):
    """Returns the lines of the imports that run when a function does."""
    return {
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }


def test_optional_modules_are_imported_late():
    """Only by functions, or by one another; so that `import keras_ssl` never needs their package."""
    assert OPTIONAL
    names = {module_of(path) for path in OPTIONAL}
    late = 0
    for path in FILES:
        tree = parse(path)
        found = {line for name, line in imported_modules(path, tree) if name in names}
        found |= {  # from the package that they are in
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if f"{node.module}.{alias.name}" in names
        }
        early = found - imported_inside_functions(tree)
        assert not early or path in OPTIONAL, f"{path} imports at its top, in line {min(early)}"
        late += len(found - early)
    assert late


def test_third_party_imports_are_declared():
    """What a file imports when it is imported is required; what a function imports may also be an extra.

    The modules in `OPTIONAL` may import their package, which is an extra too.
    """
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    required = setup["options"]["install_requires"].split("\n")
    extras = "\n".join(setup["options.extras_require"].values()).split("\n")

    def names(requirements):
        plain = {re.split(r"[\[<>=~!; ]", line.strip())[0] for line in requirements} - {""}
        return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in plain}

    wrong = []
    for path in FILES:
        tree = parse(path)
        inside = imported_inside_functions(tree)
        for name, line in imported_modules(path, tree):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "keras_ssl":
                continue
            late = line in inside or OPTIONAL.get(path) == top
            allowed = names(required) | (names(extras) if late else set())
            if top not in allowed:
                wrong.append(f"{path.relative_to(REPOSITORY)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def uses(path, found):
    """Returns "file:line name" of each node of a file for which `found(node)` returns a name."""
    return [
        f"{path.relative_to(REPOSITORY)}:{node.lineno} {found(node)}"
        for node in ast.walk(parse(path))
        if found(node)
    ]


def test_no_print_and_no_assert_in_the_library():
    def found(node):
        if isinstance(node, ast.Assert):
            return "assert"
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        return "print" if called and node.func.id == "print" else ""

    wrong = [line for path in FILES for line in uses(path, found)]
    spoken = ("keras_ssl/cli.py", "keras_ssl/flags.py", "keras_ssl/pretraining/")
    wrong = [line for line in wrong if not (line.endswith(" print") and line.startswith(spoken))]
    assert not wrong, "\n".join(wrong)


def test_environment_is_read_in_one_place():
    def found(node):
        names = {"environ", "environb", "getenv", "putenv"}
        if isinstance(node, ast.Attribute) and node.attr in names:
            return node.attr
        imported = isinstance(node, ast.ImportFrom) and node.module == "os"
        return ", ".join(names & {alias.name for alias in node.names}) if imported else ""

    wrong = [
        line for path in FILES + DOORS if path != LIBRARY / "env.py" for line in uses(path, found)
    ]
    assert not wrong, "\n".join(wrong)
    assert uses(LIBRARY / "env.py", found)


def test_flags_are_read_in_one_place():
    parsers = {"argparse", "optparse", "getopt", "click", "tyro", "absl"}
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in FILES + DOORS
        if path not in (LIBRARY / "cli.py", LIBRARY / "flags.py")
        for node in ast.walk(parse(path))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
        if name.split(".")[0] in parsers
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [module_of(path) for path in FILES])
def test_every_module_can_be_imported(name):
    needed = {module_of(path): package for path, package in OPTIONAL.items()}.get(name)
    if needed:
        pytest.importorskip(needed, reason=f"{needed} is not installed; {name} is made of it")
    assert importlib.import_module(name).__doc__, f"{name} has no docstring"


def run_python(code, env):
    # CPU time of the process from its start: a busy machine does not change it much.
    ending = (
        "\nimport sys, time\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'sklearn', 'matplotlib'} & sys.modules.keys()\n"
        "sys.stderr.write(f'{time.process_time()} {sorted(heavy)}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + ending], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seconds, _, heavy = done.stderr.partition(" ")
    assert heavy == "[]"
    assert float(seconds) < 0.5
    return done.stdout


def test_import_is_quick_and_lazy(subprocess_env):
    run_python("import keras_ssl; keras_ssl.zoo.list; keras_ssl.env", subprocess_env)


@pytest.mark.skipif(not (LIBRARY / "cli.py").is_file(), reason="there is no command yet")
def test_help_is_quick_and_lazy(subprocess_env):
    code = (
        "import sys\n"
        "from keras_ssl.cli import main\n"
        "sys.argv = ['keras-ssl', '--help']\n"
        "try:\n    code = main()\n"
        "except SystemExit as end:\n    code = end.code\n"
        "if code:\n    raise RuntimeError(code)\n"
    )
    assert "pretrain" in run_python(code, subprocess_env)


def test_unknown_attributes_are_refused():
    import keras_ssl

    assert set(ORDER) <= set(dir(keras_ssl))
    with pytest.raises(AttributeError, match="no attribute 'zooo'"):
        keras_ssl.zooo  # noqa: B018
