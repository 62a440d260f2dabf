"""After landscale and timm are imported, in any order and process, timm can create landscale's networks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import landscale
from once import made_once

CREATE = "timm.create_model('wide_resnet_eca', in_chans=4).num_features"
SOURCE = Path(landscale.__file__).parents[1]


def run_python(*args: str, cwd: Path) -> str:
    """Run a new Python process and return its standard output."""
    paths = os.pathsep.join([str(SOURCE), str(cwd)])
    environment = os.environ | {"PYTHONPATH": paths}
    process = subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


IMPORTS = {
    "landscale first": "import landscale, timm",
    "timm first": "import timm, landscale",
    "a part of timm": "import landscale; from timm.layers import SEModule; import timm",
    "registry": "import landscale.models.registry; import timm",  # imports timm; imported by all families
    "layers": "import landscale.models.layers, timm",
    "families": "import landscale.models.families, timm",
    "training": "import landscale.training.trainable_model; import timm",
    "found, then imported": "import landscale, importlib.util; assert importlib.util.find_spec('timm'); import timm",
    "python -m": "import runpy; timm = runpy.run_module('survey_tool', run_name='__main__', alter_sys=True)['timm']",
}
HOOK = (
    "before = len(sys.meta_path); import landscale, timm, landscale.models.layers;"
    "loaders = {type(m.__spec__.loader).__name__ for m in (timm, landscale.models.layers)};"
    "print(len(sys.meta_path) - before, loaders, type(timm.__loader__).__name__)"
)
CODE = {name: f"{imports}; print({CREATE})" for name, imports in IMPORTS.items()} | {"hook": HOOK}
# Importing torch is slow, so each case runs in a fork of one process that has imported it.
FORK_EACH = """
import json, os, sys, torch, torchvision
sys.path.insert(0, os.getcwd())
for name, code in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        print(name, end="=")
        exec(code)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> dict[str, str]:
    """For each case of CODE that works, what it has printed: the width of the network that timm has created."""

    def run_cases(folder: Path) -> None:
        (folder / "survey_tool").mkdir()
        (folder / "survey_tool" / "__init__.py").touch()
        (folder / "survey_tool" / "__main__.py").write_text("import landscale\nimport timm\n")
        (folder / "printed").write_text(run_python("-c", FORK_EACH, json.dumps(CODE), cwd=folder))

    text = (made_once(tmp_path_factory, "imports", run_cases) / "printed").read_text()
    return dict(line.split("=") for line in text.splitlines())


@pytest.mark.parametrize("case", IMPORTS)
def test_the_order_of_imports_does_not_matter(printed, case):
    assert printed[case] == "128"


def test_the_import_hook_removes_itself_and_keeps_the_usual_loaders(printed):
    """`sys.meta_path` has the same length as before, and modules have the standard loader."""
    assert printed["hook"] == "0 {'SourceFileLoader'} SourceFileLoader"


def test_importing_landscale_imports_neither_torch_nor_timm(tmp_path):
    script = "import sys, landscale, landscale.models; print(sorted({'torch', 'timm', 'numpy'} & sys.modules.keys()))"
    assert run_python("-c", script, cwd=tmp_path) == "[]\n"


@pytest.mark.slow  # it imports torch twice
def test_timm_has_the_networks_in_a_spawned_worker(tmp_path):
    (tmp_path / "work.py").write_text(f"import landscale\n\ndef width(_):\n    import timm\n    return {CREATE}\n")
    (tmp_path / "main.py").write_text(
        "import multiprocessing, work\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(work.width, [0]))\n"
    )
    assert run_python("main.py", cwd=tmp_path) == "[128]\n"
