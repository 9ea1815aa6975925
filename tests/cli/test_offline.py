"""``doorward policy compile`` without a server."""

import gzip
import json
from pathlib import Path

import pytest

from doorward.cli.app import program

TOPOLOGY = {
    "users": [{"id": 1, "name": "ann"}],
    "nodes": {
        "laptop": {"ipv4": "100.64.0.1", "ipv6": "fd7a:115c:a1e0::1", "user": "ann"},
        "server": {"ipv4": "100.64.0.2", "ipv6": "fd7a:115c:a1e0::2", "tags": ["tag:s"]},
    },
}
GOOD = '{"tagOwners": {"tag:s": []}, "grants": [{"src": ["ann"], "dst": ["tag:s"], "ip": ["22"]}]}'
BAD = '{"grnts": [], "groups": {"group:a": ["group:a"]},\n "acls": [{"src": ["tag:x"], "dst": ["*:1"]}]}'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOORWARD_DATA_DIR", str(tmp_path / "nothing-here"))
    (tmp_path / "good.hujson").write_text(GOOD, encoding="utf-8")
    (tmp_path / "bad.hujson").write_text(BAD, encoding="utf-8")
    (tmp_path / "tailnet.json").write_text(json.dumps(TOPOLOGY), encoding="utf-8")
    return tmp_path


def run(*words: str) -> int:
    return int(program()(("policy", "compile", *words), result_action="return_value") or 0)


def test_a_policy_is_compiled_without_a_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("good.hujson", "--topology", "tailnet.json", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["server"]["packet_filter_rules"][0]["SrcIPs"] == ["100.64.0.1", "fd7a:115c:a1e0::1"]
    assert found["laptop"].keys() == {"packet_filter_rules", "ssh_rules", "netmap"}


def test_one_node_and_a_summary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("good.hujson", "--topology", "tailnet.json", "--node", "server", "--summary") == 0
    assert capsys.readouterr().out.splitlines() == [
        "NODE    FILTER  SSH      SEES",
        "server  1 rule  0 rules  laptop",
    ]


def test_a_refused_policy_shows_every_fault_at_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bad.hujson", "--topology", "tailnet.json") == 1
    shown = capsys.readouterr()
    assert not shown.out
    assert [line for line in shown.err.splitlines() if not line.startswith(" ")] == [
        'bad.hujson:1:2: unknown key "grnts" in the policy',
        'bad.hujson:1:38: groups["group:a"]: "group:a": group members cannot be recursive',
        "bad.hujson:2:11: action must be specified",
        'bad.hujson:2:20: src=tag not found: "tag:x"',
    ]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_many_cases_are_answered_line_by_line(
    folder: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    cases = [
        {"name": name, "policy": policy, "topology": TOPOLOGY} for name, policy in (("a", GOOD), ("b", BAD))
    ]
    data = "".join(json.dumps(case) + "\n" for case in cases).encode()
    path = folder / f"cases.jsonl{suffix}"
    path.write_bytes(gzip.compress(data) if suffix else data)
    assert run("--cases", str(path)) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["name"], one["code"], sorted(one["nodes"])) for one in found] == [
        ("a", 200, ["laptop", "server"]),
        ("b", 400, []),
    ]
    assert found[0]["message"] is None
    assert "unknown key" in found[1]["message"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--topology", "tailnet.json"), "no policy is given"),
        (("good.hujson", "--cases", "x"), "--cases goes with no other argument"),
        (("good.hujson", "--topology", "nothing.json"), "cannot be read"),
        (("good.hujson", "--topology", "good.hujson"), "good.hujson: "),
        (("good.hujson", "--topology", "tailnet.json", "--node", "x"), 'the topology has no node "x"'),
    ],
)
def test_what_is_asked_wrongly_is_said(folder: Path, words: tuple[str, ...], complaint: str) -> None:
    from doorward.errors import BadInput  # noqa: PLC0415 - beside what raises it

    with pytest.raises(BadInput, match=complaint):
        run(*words)
