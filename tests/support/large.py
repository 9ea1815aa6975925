"""A policy and a tailnet of any size, shaped like a company: teams, tagged servers, subnets, SSH."""

import json
from collections.abc import Iterator
from itertools import cycle

from tests.support.policy import make_node, make_user

from doorward.model import Node, User

NODES_OF_A_PERSON = 4


def large_policy(rules: int, people: int) -> str:
    """A policy of so many network rules, of every kind, in HuJSON."""
    teams = max(1, people // 20)
    groups = {
        f"group:team{team}": [f"user{user}" for user in range(team, people, teams)] for team in range(teams)
    }
    tags = [f"tag:t{number}" for number in range(max(2, rules // 5))]
    makers = cycle((_team_to_tag, _tag_to_tag, _person_to_subnet, _team_to_team, _everyone_to_tag, _acl))
    written = [make(number, teams, tags, people) for number, make in zip(range(rules), makers, strict=False)]
    return json.dumps(
        {
            "groups": groups,
            "tagOwners": {tag: ["group:team0"] for tag in tags},
            "grants": [rule for rule in written if "ip" in rule]
            + [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}],
            "acls": [rule for rule in written if "action" in rule],
            "ssh": [
                {
                    "action": "accept",
                    "src": [f"group:team{number % teams}"],
                    "dst": [tag],
                    "users": ["autogroup:nonroot"],
                }
                for number, tag in enumerate(tags[:50])
            ],
        },
        indent=1,
    )


def _team_to_tag(number: int, teams: int, tags: list[str], _: int) -> dict[str, object]:
    return {
        "src": [f"group:team{number % teams}"],
        "dst": [tags[number % len(tags)]],
        "ip": ["tcp:443", "22"],
    }


def _tag_to_tag(number: int, _: int, tags: list[str], __: int) -> dict[str, object]:
    return {"src": [tags[number % len(tags)]], "dst": [tags[(number + 1) % len(tags)]], "ip": ["5432"]}


def _person_to_subnet(number: int, _: int, __: list[str], people: int) -> dict[str, object]:
    return {"src": [f"user{number % people}"], "dst": [f"10.{number % 250}.0.0/16"], "ip": ["*"]}


def _team_to_team(number: int, teams: int, _: list[str], __: int) -> dict[str, object]:
    return {
        "src": [f"group:team{number % teams}"],
        "dst": [f"group:team{(number * 7 + 1) % teams}"],
        "ip": [str(1000 + number % 9000)],
    }


def _everyone_to_tag(number: int, _: int, tags: list[str], __: int) -> dict[str, object]:
    return {"src": ["autogroup:member"], "dst": [tags[number % len(tags)]], "ip": [str(1 + number % 1000)]}


def _acl(number: int, teams: int, tags: list[str], _: int) -> dict[str, object]:
    dst = [f"{tags[number % len(tags)]}:80,443", f"192.168.{number % 250}.0/24:22"]
    return {"action": "accept", "src": [f"group:team{number % teams}", tags[0]], "dst": dst}


def large_tailnet(nodes: int, rules: int) -> tuple[list[User], list[Node]]:
    """Users and nodes for that policy: of five nodes one is tagged, and of a hundred one routes a subnet."""
    people = people_of(nodes)
    users = [make_user(number + 1, f"user{number}") for number in range(people)]
    return users, list(_nodes(nodes, rules, people))


def people_of(nodes: int) -> int:
    """How many people so many nodes have."""
    return max(1, nodes // (NODES_OF_A_PERSON + 1))


def _nodes(count: int, rules: int, people: int) -> Iterator[Node]:
    tags = max(2, rules // 5)
    for number in range(1, count + 1):
        routes = [f"10.{number // 100 % 250}.0.0/16"] if number % 100 == 0 else []
        if number % 5 == 0:
            yield make_node(number, tags=[f"tag:t{number % tags}"], advertised=routes, approved=routes)
        else:
            yield make_node(number, user=number % people + 1)
