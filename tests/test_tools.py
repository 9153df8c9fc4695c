"""The tools of the repository agree: what is written in two of their files is the same in both."""

import configparser
import itertools
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from sockets.engines import DISTRIBUTIONS

from . import servers

ROOT = Path(__file__).resolve().parent.parent


def read(name):
    return (ROOT / name).read_text(encoding='utf-8')


def environments(key, section='tox'):
    """Return the unit environments that are named there in tox.ini, each as (Python, Django, 'channels4' or '')."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(str(ROOT / 'tox.ini'))
    found = set()
    for pythons, djangos, stack in re.findall(
        r'\bpy\{?([\d,]+)\}?-django\{?([\d,]+)\}?-?(channels4)?', tox[section][key]
    ):
        found |= set(itertools.product(pythons.split(','), djangos.split(','), [stack]))
    return found


def test_each_django_is_run_and_each_python_but_those_between_the_first_and_the_last_of_a_django():
    pairs = {pair for pair in environments('labels') if not pair[2]}
    run = {pair for pair in environments('env_list') if not pair[2]}
    assert run <= pairs
    assert {django for _, django, _ in run} == {django for _, django, _ in pairs}
    # Python 3.11 and 3.12 are those of the live tests, here and in the workflow.
    assert {python for python, _, _ in pairs} - {python for python, _, _ in run} <= {'311', '312'}


def test_what_measures_time_runs_after_the_unit_tests():
    assert environments('env_list') <= environments('depends', 'testenv:live')


def test_the_workflow_runs_each_python_of_tox():
    tox, workflow = read('tox.ini'), read('.github/workflows/test.yml')
    (matrix,) = re.findall(r'^ +matrix = (.+)$', tox, re.MULTILINE)
    numbers = set(re.findall(r'\d+', ' '.join(re.findall(r'py\{?([\d,]+)', matrix))))
    (pythons,) = re.findall(r'^ +python: \[(.+)\]$', workflow, re.MULTILINE)
    assert {python.replace('.', '') for python in re.findall(r"'([\d.]+)'", pythons)} == numbers


def test_each_stack_has_its_own_distribution():
    assert DISTRIBUTIONS == {'channels1': 'django-routed-sockets', 'channels4': 'django-routed-sockets-asgi'}
    for name in DISTRIBUTIONS.values():
        assert f'`{name}`' in read('docs/reference/compatibility.md')


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


@pytest.fixture
def example(tmp_path):
    """A function that runs scripts/example in a checkout that has nothing else, and returns its code and what it said."""
    shutil.copytree(str(ROOT / 'scripts'), str(tmp_path / 'scripts'))

    def run(**variables):
        ours = {'PYTHON', 'SOCKETS_STACK', 'STACK'}
        environment = {key: value for key, value in os.environ.items() if key not in ours}
        environment['PORT'] = str(servers.free_port())
        environment.update(variables)
        process = subprocess.run(
            [str(tmp_path / 'scripts/example')], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert not (tmp_path / '.venv').exists()
        return process.returncode, process.stdout.decode()

    return run


def test_a_taken_port_is_said_before_the_virtualenv_of_the_example_is_made_anew(example):
    # A second `scripts/example`, started with another Python, deleted the packages of the one that was running.
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen(1)
        port = str(taken.getsockname()[1])
        code, said = example(PORT=port)
    assert code == 1 and f'Port {port} is taken' in said


def test_the_example_says_which_stacks_there_are(example):
    for variable in ('STACK', 'SOCKETS_STACK'):
        assert example(**{variable: 'channels2'}) == (1, 'Error: STACK=channels2 is neither channels1 nor channels4.\n')


@pytest.mark.parametrize('stack, oldest', [('', '3.7'), ('channels1', '3.7'), ('channels4', '3.10')])
def test_the_example_looks_for_a_python_that_its_stack_runs_on(example, stack, oldest):
    code, said = example(STACK=stack, PYTHON='/bin/false')
    assert (code, said) == (1, f'Error: PYTHON=/bin/false is not a Python {oldest} to 3.13.\n')
    assert f"'python_requires': '>={oldest}'" in read('setup.py')
