"""The command finds its own packages, and writes to terminals that know few letters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import featcx_core
from featcx_core.entry import _spelled

ROOT = Path(featcx_core.__file__).parents[1]


def started(code, cwd, **environment):
    script = f"import sys; sys.path.insert(1, {str(ROOT)!r}) if {str(ROOT)!r} not in sys.path else 0; {code}"
    own = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"} | environment
    return subprocess.run([sys.executable, "-P", "-c", script], cwd=cwd, env=own, capture_output=True, check=False)


def test_a_user_s_own_packages_of_our_names_are_no_matter(tmp_path):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("raise SystemExit(9)")
    (tmp_path / "tasks.py").write_text("raise SystemExit(9)")
    (tmp_path / "mine.py").write_text("x = 5")
    code = (
        "from featcx_core.entry import own_packages_first as own; own();"
        "import flows, tasks.env, mine; print(flows.__file__, mine.x)"
    )
    done = started(code, tmp_path, PYTHONPATH=f".{os.pathsep}{ROOT}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().split() == [str(ROOT / "flows" / "__init__.py"), "5"]


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "Phi - sqrt 2 <= ... e ?"), ("latin-1", "Phi - sqrt 2 <= ... é ?")]
)
def test_letters_are_spelled_where_they_cannot_be_shown(tmp_path, encoding, shown):
    code = "from featcx_core.entry import write_anything; write_anything(); print('Φ − √2 ≤ … é 猫')"
    done = started(code, tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout.decode(encoding).strip()) == (0, shown)


def test_bytes_that_cannot_be_read_stay_an_error():
    with pytest.raises(UnicodeDecodeError):
        _spelled(UnicodeDecodeError("utf-8", b"x", 0, 1, "why"))


def test_text_is_read_and_written_as_utf_8_whatever_the_locale(tmp_path):
    code = (
        "from featcx_core.store.artifacts import Store; s = Store('s'); name = chr(934) + chr(233);"
        "fill = lambda f: (f / 'x').write_bytes(b'x') and {'label': name, 'lineage': {}};"
        "ref = s.publish('data', 'k', fill); assert s.find('data', 'k') == ref; assert s.manifests()[0]['label'] == name"
    )
    done = started(code, tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0, done.stderr
