"""The relay map: integer keys, and the one field whose name starts with a lower-case letter."""

import json

from doorward.protocol.tailcfg.codec import decode_response, encode
from doorward.protocol.tailcfg.derpmap import DERPHomeParams, DERPMap, DERPNode, DERPRegion

NODE = DERPNode(Name="900a", RegionID=900, HostName="192.0.2.1", IPv6="none", STUNPort=-1)
MAP = DERPMap(
    Regions={900: DERPRegion(RegionID=900, RegionCode="home", RegionName="Home", Nodes=[NODE])},
    omitDefaultRegions=True,
)


def test_the_form_on_the_wire() -> None:
    assert json.loads(encode(MAP)) == {
        "Regions": {
            "900": {
                "RegionID": 900,
                "RegionCode": "home",
                "RegionName": "Home",
                "Nodes": [
                    {
                        "Name": "900a",
                        "RegionID": 900,
                        "HostName": "192.0.2.1",
                        "IPv6": "none",
                        "STUNPort": -1,
                    }
                ],
            }
        },
        "omitDefaultRegions": True,
    }
    assert decode_response(encode(MAP), DERPMap, limit=10_000) == MAP


def test_home_parameters_alone_do_not_name_regions() -> None:
    alone = DERPMap(HomeParams=DERPHomeParams(RegionScore={900: 0.5}))
    assert encode(alone) == b'{"HomeParams":{"RegionScore":{"900":0.5}}}'
    assert decode_response(encode(alone), DERPMap, limit=1000) == alone
