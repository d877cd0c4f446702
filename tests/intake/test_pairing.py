from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from roofseg.intake.pairing import tile_name


@given(st.text("ab0._- /ø\u00e9\u0301\n", max_size=8) | st.text(max_size=20))
def test_a_tile_name_is_valid_and_maps_to_itself(stem: str) -> None:
    name = tile_name(stem)
    assert re.fullmatch(r"([\w][\w.-]*)?", name)
    assert tile_name(name) == name


def test_composed_and_decomposed_accents_give_one_name() -> None:
    assert tile_name("A\u030alesund") == tile_name("\u00c5lesund") == "\u00c5lesund"
