import json

from doorward.issuer.errors import TokenError, bad_token


def test_a_description_has_only_signs_that_may_travel() -> None:
    error = TokenError("invalid_request", 'é"\\\n fine')
    assert error.description == "???? fine"
    answer = error.answer()
    assert json.loads(bytes(answer.body)) == {"error": "invalid_request", "error_description": "???? fine"}
    assert answer.status_code == 400
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"


def test_a_bad_token_says_so_in_its_challenge() -> None:
    answer = bad_token().answer()
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
