"""The tools of the repository agree: what is written in two of their files is the same in both."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def read(name):
    return (ROOT / name).read_text(encoding='utf-8')


def test_the_workflow_runs_each_python_of_tox():
    tox, workflow = read('tox.ini'), read('.github/workflows/test.yml')
    (matrix,) = re.findall(r'^ +matrix = (.+)$', tox, re.MULTILINE)
    numbers = set(re.findall(r'\d+', ' '.join(re.findall(r'py\{?([\d,]+)', matrix))))
    (pythons,) = re.findall(r'^ +python: \[(.+)\]$', workflow, re.MULTILINE)
    assert {python.replace('.', '') for python in re.findall(r"'([\d.]+)'", pythons)} == numbers


def test_the_package_and_its_tools_name_the_same_oldest_python():
    setup = read('setup.py')
    oldest, of_channels4 = re.findall(r"'python_requires': '>=([\d.]+)'", setup)
    assert 'target-version = "py{}"'.format(oldest.replace('.', '')) in read('ruff.toml')
    assert re.findall(r"'pythons': \['([\d.]+)'", setup) == [oldest, of_channels4]


def test_pre_commit_has_the_ruff_that_the_lint_environment_has():
    (version,) = re.findall(r"'ruff==([\d.]+)'", read('setup.py'))
    assert set(re.findall(r"'ruff==([\d.]+)'", read('.pre-commit-config.yaml'))) == {version}


def test_the_line_length_is_the_same_in_the_editor():
    (length,) = re.findall(r'^line-length = (\d+)$', read('ruff.toml'), re.MULTILINE)
    assert f'max_line_length = {length}' in read('.editorconfig').partition('[*.md]')[0]


def test_a_taken_port_is_said_before_the_virtualenv_of_the_example_is_made_anew(tmp_path):
    # A second `scripts/example`, started with another Python, deleted the packages of the one that was running.
    shutil.copytree(str(ROOT / 'scripts'), str(tmp_path / 'scripts'))
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen(1)
        port = str(taken.getsockname()[1])
        process = subprocess.run(
            [str(tmp_path / 'scripts/example')],
            env=dict(os.environ, PORT=port),
            capture_output=True,
        )
    assert process.returncode == 1 and f'Port {port} is taken' in process.stderr.decode()
    assert not (tmp_path / '.venv').exists()
