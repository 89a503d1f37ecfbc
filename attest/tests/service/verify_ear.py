"""Verifies an attestation result with PyJWT.

usage: verify_ear.py JWKS_URL TOKEN ISSUER NONCE

Prints the result's status.
"""

import sys

import jwt

jwks_url, token, issuer, nonce = sys.argv[1:]
key = jwt.PyJWKClient(jwks_url).get_signing_key_from_jwt(token)
claims = jwt.decode(
    token,
    key,
    algorithms=["ES384"],
    issuer=issuer,
    leeway=60,
    options={"require": ["exp", "iat", "iss"]},
)
assert claims["eat_profile"] == "tag:ietf.org,2026:rats/ear#04", claims
assert claims["eat_nonce"] == nonce, claims
assert claims["submods"]["nitro-enclave"]["ear_status"] == claims["ear_status"], claims
print(claims["ear_status"])
