"""The annotations tell a type checker what is right and what is wrong. Only the lint environment runs this."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.typing

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / 'tests/typing'


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """What mypy says of the files, as a user runs it: a dict of file names to sets of lines and codes."""
    pytest.importorskip('mypy')
    # Neither Django 2.2 nor Channels 1 has types. What is wrong inside the package is not the user's concern.
    process = subprocess.run(
        [
            sys.executable,
            '-m',
            'mypy',
            '--config-file=',
            '--ignore-missing-imports',
            '--follow-imports=silent',
            '--check-untyped-defs',
            '--cache-dir',
            str(tmp_path_factory.mktemp('mypy')),
            'tests/typing/right.py',
            'tests/typing/wrong.py',
        ],
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = {'right.py': set(), 'wrong.py': set()}
    for line in process.stdout.splitlines():
        error = re.match(r'tests[/\\]typing[/\\](\w+\.py):(\d+): error: .* \[([a-z-]+)\]$', line)
        if error:
            found[error.group(1)].add((int(error.group(2)), error.group(3)))
        else:
            assert ' note: ' in line or line.startswith('Found '), process.stdout
    return found


def test_what_is_right_is_not_complained_of(found):
    assert found['right.py'] == set()


LINES = (FILES / 'wrong.py').read_text(encoding='utf-8').splitlines()
WRONG = {
    (number, match.group(1))
    for number, line in enumerate(LINES, 1)
    for match in [re.search(r'  # wrong: ([a-z-]+)$', line)]
    if match
}


@pytest.mark.parametrize(
    'number, code',
    sorted(WRONG),
    ids=lambda value: LINES[value - 1].partition('  # wrong')[0].strip() if isinstance(value, int) else value,
)
def test_a_mistake_is_found(found, number, code):
    assert (number, code) in found['wrong.py']


def test_nothing_else_is_complained_of(found):
    assert found['wrong.py'] <= WRONG
