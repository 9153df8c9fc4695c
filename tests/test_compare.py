"""Holds docs/compare.md to what it says: a yes of ours is a test, a no has its reason."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / 'docs'
PAGE = (DOCS / 'compare.md').read_text()
ROWS = [[cell.strip() for cell in line.strip('|').split('|')] for line in PAGE.splitlines() if line.startswith('| ')]
CELLS = [row[1] for row in ROWS if row[0]]
PROOFS = {number: (path, name) for number, path, name in re.findall(r'^\[(\d+)\]: (\S+) "(.+)"$', PAGE, re.MULTILINE)}
REASONS = {
    heading.lower().replace(' ', '-'): text
    for heading, text in re.findall(r'^### (.+)\n\n((?:.+\n)+)', PAGE, re.MULTILINE)
}


def test_every_cell_says_something():
    assert len({tuple(row[1:]) for row in ROWS if not row[0]}) == 1
    for row in ROWS:
        assert len(row) == len(ROWS[0]), row
        if row[0]:
            assert set(row[2:]) <= {'yes', 'no', 'part', 'opt in', 'by hand', 'third party', '?', '–'}, row


def test_a_cell_of_ours_is_a_yes_with_a_proof_or_a_no_with_a_reason():
    proofs = [re.match(r'\[(?:yes|on Channels [14])\]\[(\d+)\]$', cell) for cell in CELLS]
    reasons = [re.match(r'\[no\]\(#([a-z-]+)\)$', cell) for cell in CELLS]
    assert all(bool(proof) != bool(reason) for proof, reason in zip(proofs, reasons))
    assert [proof.group(1) for proof in proofs if proof] == list(PROOFS)
    assert [reason.group(1) for reason in reasons if reason] and {
        reason.group(1) for reason in reasons if reason
    } == set(REASONS)


@pytest.mark.parametrize('path, name', list(PROOFS.values()), ids=[name for _, name in PROOFS.values()])
def test_the_test_that_proves_it_is_there(path, name):
    definition = r"^\s*def {0}\(|^test\('{0}', ".format(re.escape(name))
    assert re.search(definition, (DOCS / path).read_text(), re.MULTILINE)
