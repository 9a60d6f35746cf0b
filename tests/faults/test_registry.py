"""Nothing of the matrix is silently missing: rows, tests and reasons are compared."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults import registry_a1_to_a5, registry_a6_to_a9
from tests.faults.registry import IDS, Proof, missing

PROOFS = (*registry_a1_to_a5.PROOFS, *registry_a6_to_a9.PROOFS)


def test_every_row_of_the_matrix_is_listed_once_and_in_order():
    assert [proof.row for proof in PROOFS] == list(IDS)


def test_every_row_has_a_test_or_a_reason():
    assert [proof.row for proof in PROOFS if not proof.tests and not proof.lacks] == []


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.row)
def test_every_test_that_is_named_exists_and_is_named_once(proof: Proof, root):
    assert [name for name, count in Counter(proof.tests).items() if count > 1] == []
    assert missing(proof.tests, root) == []


def test_a_test_or_a_file_that_does_not_exist_is_found(root):
    here = "faults/test_registry.py"
    named = [f"{here}::test_every_row_has_a_test_or_a_reason", f"{here}::test_nothing", "faults/nowhere.py::test_one"]
    assert missing(named, root) == named[1:]
