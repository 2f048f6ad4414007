"""The direction of imports: a room imports rap/ and itself, and only the Airflow layer imports Airflow."""

import ast
from pathlib import Path

import pytest

import airflow_provider_hkex_rap

PACKAGE = "airflow_provider_hkex_rap"
ROOT = Path(airflow_provider_hkex_rap.__file__).parent

FORBIDDEN = {
    "aio": {"airflow", "asyncssh", "fsspec"},
    "rap": {"airflow", "asyncssh", "fsspec"},
    "transport": {"airflow"},
    "lake": {"airflow", "asyncssh"},
    "keystore": {"airflow"},
    "runner": {"airflow"},
}
"""The packages that a room must not import, not even inside a function."""

ALLOWED = {"keystore/variable.py", "lake/catalog.py", "lake/opening.py"}
"""The modules that may import Airflow, but only inside functions and for types."""

BELOW = {"runner": ["keystore", "transport"]}
"""The rooms that a room may import beside itself, aio/ and rap/."""


def imports(source, module):
    """Return the absolute names that a module imports, and those that it imports when it is loaded."""
    tree = ast.parse(source)
    deferred = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for statement in branch.body
        for node in ast.walk(statement)
    }
    everywhere, on_load = set(), set()
    for node in ast.walk(tree):
        names = imported(node, module)
        everywhere |= names
        if node not in deferred | typing_only:
            on_load |= names
    return everywhere, on_load


def imported(node, module):
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        base = ".".join(module.split(".")[: -node.level]) if node.level else ""
        base = ".".join(part for part in (base, node.module) if part)
        return {f"{base}.{alias.name}" for alias in node.names}
    return set()


def modules(room):
    for path in sorted((ROOT / room).rglob("*.py")):
        # For relative imports a package counts as a module within itself.
        yield path, ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts))


def inside(name, package):
    return name == package or name.startswith(package + ".")


ROOMS = [room for room in FORBIDDEN if (ROOT / room).is_dir()]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_rap_and_itself_only(room):
    allowed = [f"{PACKAGE}.{name}" for name in ("__version__", "aio", "rap", room, *BELOW.get(room, ()))]
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path, module in modules(room)
        for name in imports(path.read_text(), module)[str(path.relative_to(ROOT)) in ALLOWED]
        if any(inside(name, other) for other in FORBIDDEN[room])
        or (inside(name, PACKAGE) and not any(inside(name, own) for own in allowed))
    }
    assert not wrong


def test_the_simulator_loads_without_airflow():
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path, module in modules("testing")
        for name in imports(path.read_text(), module)[1]
        if inside(name, "airflow")
    }
    assert not wrong


def test_the_check_reads_the_modules_of_rap():
    assert len(list(modules("rap"))) > 10


@pytest.mark.parametrize(
    ("source", "everywhere", "on_load"),
    [
        ("import airflow.sdk as sdk", {"airflow.sdk"}, {"airflow.sdk"}),
        ("from airflow import sdk", {"airflow.sdk"}, {"airflow.sdk"}),
        ("def f():\n    import asyncssh", {"asyncssh"}, set()),
        ("async def f():\n    with a:\n        from fsspec import open", {"fsspec.open"}, set()),
        ("class A:\n    import asyncssh", {"asyncssh"}, {"asyncssh"}),
        ("if TYPE_CHECKING:\n    import asyncssh\nelse:\n    import io", {"asyncssh", "io"}, {"io"}),
        ("from ..lake import spool", {f"{PACKAGE}.lake.spool"}, {f"{PACKAGE}.lake.spool"}),
        ("from . import keys", {f"{PACKAGE}.rap.keys"}, {f"{PACKAGE}.rap.keys"}),
    ],
)
def test_every_form_of_import_is_seen(source, everywhere, on_load):
    assert imports(source, f"{PACKAGE}.rap.module") == (everywhere, on_load)


def graph(sources):
    """Return the modules of the package that each module imports, wherever in its source it imports them.

    :param sources: source texts by module name; that of a package ends in `.__init__`.
    """
    known = {module.removesuffix(".__init__") for module in sources}
    edges = {}
    for module, source in sources.items():
        names = imports(source, module)[0]
        # `from a import b` imports the module a.b if there is one, else a name of the module a.
        found = {name if name in known else name.rpartition(".")[0] for name in names}
        importing = module.removesuffix(".__init__")
        edges[importing] = (found & known) - {importing}
    return edges


def circles(edges):
    """Return each set of modules that import one another, directly or through others."""

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            new = edges[waiting.pop()] - seen
            seen |= new
            waiting.extend(new)
        return seen

    reach = {module: reached(module) for module in edges}
    found = {frozenset(it for it in reach[module] if module in reach[it]) for module in edges}
    return {circle for circle in found if circle}


def test_no_module_imports_another_in_a_circle():
    """Imports inside functions and under TYPE_CHECKING count too.

    One kind does not count: Python runs `a/__init__.py` before it imports `a.b`. If that counted, every room
    whose `__init__` exports something would be a circle.
    """
    sources = {module: path.read_text() for path, module in modules(".")}
    assert f"{PACKAGE}.testing.simulator" in sources
    assert circles(graph(sources)) == set()


def test_no_room_imports_another_in_a_circle():
    sources = {module: path.read_text() for path, module in modules(".")}
    rooms = {}
    for module, found in graph(sources).items():
        # A module of the package itself is a room of its own.
        room, *others = (name.removeprefix(f"{PACKAGE}.").split(".")[0] for name in (module, *found))
        rooms.setdefault(room, set()).update({*others} - {room})
    assert circles(rooms) == set()


@pytest.mark.parametrize(
    "statement",
    [
        "import p.b",
        "from p import b",
        "from p.b import name",
        "def f():\n    from p.b import name",
        "if TYPE_CHECKING:\n    from p.b import name",
        "from p.sub import c",
        "from . import b",
    ],
)
def test_every_circle_is_found(statement):
    sources = {
        "p.__init__": "",
        "p.a": statement,
        "p.b": "from p import a\nimport p.d",
        "p.sub.__init__": "from . import c",
        "p.sub.c": "import p.b",
        "p.d": "import p",
    }
    (circle,) = circles(graph(sources))
    assert {"p.a", "p.b"} <= circle <= {"p.a", "p.b", "p.sub.c"}
