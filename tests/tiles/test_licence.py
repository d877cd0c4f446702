from __future__ import annotations

from pathlib import Path

import pytest
from graph import ROOT

from roofseg.core.errors import UserError
from roofseg.tiles.licence import Licence, declared_licence, licence_of_weights, read_licence

FREE, NONE = Licence("Apache-2.0", ""), Licence("none", "")
OTHER, SHARED = Licence("other", ""), Licence("CC-BY-SA-4.0", "")


def test_weights_state_their_licence_as_an_identifier_or_in_words() -> None:
    assert declared_licence("CC-BY-4.0") == Licence(
        "CC-BY-4.0", "Weights under the licence CC-BY-4.0."
    )
    assert declared_licence("Only for the city.") == Licence("other", "Only for the city.")


@pytest.mark.parametrize("name", ["sample", "inria", "austin512"])
def test_every_dataset_of_the_repository_states_its_licence(name: str) -> None:
    licence = read_licence(ROOT / "data" / name)
    assert licence.spdx == ("Apache-2.0" if name == "sample" else "other")
    assert ("redistributed" in licence.terms) == (name != "sample")


@pytest.mark.parametrize(
    ("text", "spdx", "terms"),
    [
        ("SPDX-License-Identifier: CC-BY-4.0\n\nCity of Oslo,\n2024.\n", "CC-BY-4.0", "City"),
        ("City of Oslo.\nSPDX-License-Identifier:  ODbL-1.0 \n", "ODbL-1.0", "City of Oslo."),
        ("Nobody knows.\n", "other", "Nobody knows."),
        ("\ufeffSPDX-License-Identifier: CC0-1.0\nAnybody.\n", "CC0-1.0", "Anybody."),
        ("See SPDX-License-Identifier: MIT, or ask.\n", "other", "See SPDX"),
        ("It once said SPDX-License-Identifier: MIT\n", "other", "It once"),
    ],
)
def test_a_dataset_states_its_licence(tmp_path: Path, text: str, spdx: str, terms: str) -> None:
    (tmp_path / "LICENSE.md").write_text(text)
    licence = read_licence(tmp_path)
    assert licence.spdx == spdx
    assert licence.terms.startswith(terms)
    assert "SPDX" not in licence.terms or spdx == "other"


def test_a_missing_licence_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"LICENSE\.md: no such file; expected .*If nobody knows"):
        read_licence(tmp_path)
    (tmp_path / "LICENSE.md").write_text(" \n")
    with pytest.raises(UserError, match=r"LICENSE\.md: empty; expected"):
        read_licence(tmp_path)
    (tmp_path / "LICENSE.md").write_bytes("Kommune Ålesund.".encode("latin-1"))
    with pytest.raises(UserError, match=r"LICENSE\.md: cannot be read .*Save it as text in UTF-8"):
        read_licence(tmp_path)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([FREE, FREE], "Apache-2.0"),
        ([NONE, FREE], "Apache-2.0"),
        ([FREE, OTHER], "other"),
        ([NONE, OTHER], "other"),
        ([FREE, SHARED], "other"),
        ([SHARED, SHARED], "other"),
    ],
)
def test_the_licence_of_weights_combines_those_of_their_parts(
    parts: list[Licence], expected: str
) -> None:
    assert licence_of_weights(*parts) == expected
