"""What a policy costs: ``python -m bench.policy [--rules N]`` prints how it grows from 100 nodes to 10,000.

A thousand rules of every kind, and a company of people, tagged servers and routers. All times are of one core. *Compiled* is
everything that rules have in common for all nodes: who their sources and targets are, with all addresses. A *change* is one node
that joins, leaves or gets another tag: the next policy, all of its rules, and the node's own packet filter and peers.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.support.large import large_policy, large_tailnet, people_of
from tests.support.policy import make_node

from bench.table import Figures, Found, Group, Options, Row
from doorward.policy import Policy, parse_policy
from doorward.policy.reach import Goal, near_miss, ways
from doorward.policy.roster import Member

RULES = 1000
QUESTIONS = 20


def seconds(work: Callable[[], Any]) -> float:
    """Processor seconds that a piece of work takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


class Company:
    """A policy and its tailnet, compiled."""

    def __init__(self, nodes: int, rules: int) -> None:
        self.text = large_policy(rules, people_of(nodes))
        self.users, self.nodes = large_tailnet(nodes, rules)
        self.policy = Policy.compile(parse_policy(self.text), self.users, self.nodes)
        self.policy.resolve()

    def figures(self) -> dict[str, float]:
        """Seconds of each row."""
        nodes, policy = self.nodes, self.policy
        some = [node.id for node in nodes[:: max(1, len(nodes) // QUESTIONS)]]
        fresh = policy.updated()  # it remembers no packet filter yet
        fresh.resolve()
        joined = make_node(len(nodes) + 1, user=1)
        retagged = make_node(nodes[2].id, tags=["tag:t1"])
        ends = [policy.roster.members[node_id] for node_id in some]
        changes = (
            (joined.id, lambda: policy.updated(nodes=[joined])),
            (nodes[1].id, lambda: policy.updated(removed=[nodes[1].id])),
            (retagged.id, lambda: policy.updated(nodes=[retagged])),
        )
        return {
            "policy-parse": seconds(lambda: parse_policy(self.text)),
            "policy-compile": seconds(self._compile),
            "policy-change": max(seconds(lambda one=one: _settle(one[1](), one[0])) for one in changes),  # type: ignore[misc]
            "policy-filter": _each(lambda: [fresh.filter_rules(one) for one in some], some),
            "policy-reach": _each(lambda: [_ask(policy, ends[0], one) for one in ends], ends),
        }

    def _compile(self) -> None:
        Policy.compile(self.policy.document, self.users, self.nodes).resolve()


def _settle(policy: Policy, node_id: int) -> None:
    policy.resolve()
    policy.filter_rules(node_id)
    policy.peers(node_id)


def _ask(policy: Policy, source: Member, target: Member) -> object:
    """By which rules, or else which rule came closest."""
    goal = Goal((target,), (target.ipv4, target.ipv6), 443)
    return ways(policy, source, goal) or near_miss(policy, source, goal, name="it", attributes={})


def _each(work: Callable[[], Any], things: list[Any]) -> float:
    return seconds(work) / len(things)


ROWS = (
    Row(
        id="policy-parse",
        what=f"a policy of {RULES:,} rules is read",
        unit="s",
        baseline="a tenth of the nodes",
    ),
    Row(
        id="policy-compile",
        what=f"{RULES:,} rules compiled for 10,000 nodes",
        unit="s",
        baseline="a tenth of the nodes",
        must=2.0,
    ),
    Row(
        id="policy-change",
        what="the same after one node joins, leaves or changes tags (the slowest)",
        unit="s",
        baseline="a tenth of the nodes",
        must=0.05,
    ),
    Row(
        id="policy-filter",
        what="the packet filter of one of 10,000 nodes",
        unit="s",
        baseline="a tenth of the nodes",
        must=0.001,
    ),
    Row(
        id="policy-reach",
        what="who reaches what, and by which rule: one question",
        unit="s",
        baseline="a tenth of the nodes",
        must=0.01,
    ),
)


def measure(options: Options) -> Found:
    """Every row, beside a tailnet of a tenth."""
    rules = 60 if options.smoke else RULES
    whole, tenth = Company(options.many, rules), Company(max(10, options.many // 10), rules)
    found = {row.id: Figures() for row in ROWS}
    for _ in range(options.rounds):
        for company, side in ((whole, "samples"), (tenth, "baseline")):
            for name, value in company.figures().items():
                getattr(found[name], side).append(value)
    return found


GROUPS = (Group(name="policy", rows=ROWS, run=measure, seconds=20),)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.policy")
    parser.add_argument("--rules", type=int, default=RULES)
    asked = parser.parse_args()
    print(f"{asked.rules} rules; milliseconds of one core")
    print("nodes   parse   compile   change   filter   reach")
    for nodes in (100, 1000, 10_000):
        company = Company(nodes, asked.rules)
        rounds = [company.figures().values() for _ in range(5)]
        shown = [f"{statistics.median(values) * 1000:.2f}" for values in zip(*rounds, strict=True)]
        print("{:<6}{:>8}{:>9}{:>9}{:>9}{:>8}".format(nodes, *shown))


if __name__ == "__main__":
    main()
