"""Headers that tell browsers what no answer is for: other sites' frames and scripts, guessed types, referrers.

Knows nothing of requests.
"""

RawHeaders = tuple[tuple[bytes, bytes], ...]

# One policy for the page, its files and the API: it names what the page does, and all else does less.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_ALWAYS: RawHeaders = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"SAMEORIGIN"),
)
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")


def security_headers(*, tls: bool, loopback: bool) -> RawHeaders:
    """Of every answer. `localhost` is every program's name: what one says of https would bind the others."""
    return (*_ALWAYS, _HTTPS_ONLY) if tls and not loopback else _ALWAYS
