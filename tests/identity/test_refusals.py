from typing import Any

from doorward.identity.refusals import ProofRefused, ScopeError, StrengthError, TokenError, TokenTwice


def test_each_has_the_code_and_the_status_that_programs_know() -> None:
    errors: list[Any] = [
        TokenError("x"),
        ProofRefused("use_dpop_nonce", "x"),
        StrengthError("x", ["a"], 5),
        ScopeError("x", ["a"]),
        TokenTwice("x"),
    ]
    assert [(one.code, one.status) for one in errors] == [
        ("invalid_token", 401),
        ("use_dpop_nonce", 401),
        ("insufficient_user_authentication", 401),
        ("insufficient_scope", 403),
        ("invalid_request", 400),
    ]
