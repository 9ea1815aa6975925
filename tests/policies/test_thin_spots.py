"""Our own cases for what recordings of the hosted service say little about: written by hand, from its documentation."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.policy import arrows

from doorward.protocol.tailcfg.filter import FilterRule
from doorward.tailnet.offline import Topology, compile_offline

FILE: dict[str, Any] = json.loads(Path(__file__).with_name("thin_spots.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", FILE["cases"], ids=[case["name"] for case in FILE["cases"]])
def test_a_case(case: dict[str, Any]) -> None:
    assert case.keys() == {"name", "policy", "filters"}
    found = compile_offline(json.dumps(case["policy"]), msgspec.convert(FILE["topology"], Topology))
    filters = {
        name: arrows(msgspec.convert(found[name].packet_filter_rules, list[FilterRule]))
        for name in case["filters"]
    }
    assert filters == case["filters"]
