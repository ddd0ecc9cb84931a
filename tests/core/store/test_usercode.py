"""A net of the user's own is made of all that its module imports, found without running any of it."""

import hashlib
from importlib.metadata import version

import pytest

from featcx_core.errors import InputError
from featcx_core.store.usercode import own_code

FILES = {
    "mine/__init__.py": "raise SystemExit('nobody runs this')",
    "mine/net.py": "import torch\nfrom .parts import x\nfrom mine import sizes\nimport json, numpy\nfrom . import late",
    "mine/parts.py": "def block():\n    import helper\n    from deep.er import x",
    "mine/sizes.py": "WIDTH = 4",
    "mine/late.py": "try:\n    import not_there\nexcept ImportError:\n    pass",
    "mine/unused.py": "y = 1",
    "helper.py": "import mine.net",
    "deep/er/__init__.py": "x = 1",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_files_by_bytes_and_packages_by_version(own):
    found = own_code("mine.net")
    files = {
        "mine": "mine/__init__.py",
        "mine.net": "mine/net.py",
        "mine.parts": "mine/parts.py",
        "helper": "helper.py",
    }
    files |= {"mine.sizes": "mine/sizes.py", "mine.late": "mine/late.py", "deep.er": "deep/er/__init__.py"}
    wanted = {name: hashlib.sha256((own / file).read_bytes()).hexdigest()[:16] for name, file in files.items()}
    assert found == wanted | {"torch": version("torch"), "numpy": version("numpy")}


@pytest.mark.parametrize("name", [name for name in FILES if name != "mine/unused.py"])
def test_a_change_anywhere_in_it_counts(own, name):
    before = own_code("mine.net")
    (own / name).write_text(FILES[name] + "\n# more")
    assert own_code("mine.net") != before


def test_a_change_beside_it_does_not(own):
    before = own_code("mine.net")
    (own / "mine/unused.py").write_text("y = 2")
    assert own_code("mine.net") == before


def test_a_file_that_is_no_python_is_named(own):
    (own / "helper.py").write_text("def")
    with pytest.raises(InputError, match=r"helper\.py is no Python that can be read"):
        own_code("mine.net")


def test_what_is_not_there_is_nothing(own):
    assert own_code("nowhere.at.all") == {}
