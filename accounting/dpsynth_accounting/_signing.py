"""Ed25519 signatures over canonical JSON, where a key is configured; ``cryptography`` is optional.

A signature is two fields beside what it signs: ``signature`` and ``public_key``, both hexadecimal.
It shows who wrote something only against a public key that the reader got elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsynth_accounting._canonical import canonical
from dpsynth_accounting._errors import InvalidRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_FIELDS = ("signature", "public_key")


def signature(key: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the two fields that sign ``facts``.

    Args:
        key: PEM file of an Ed25519 private key without a passphrase.
        facts: JSON data; a signature already among them is not signed.
    """
    private = _private_key(key)
    return {
        "signature": private.sign(_signed_bytes(facts)).hex(),
        "public_key": private.public_key().public_bytes_raw().hex(),
    }


def fits(facts: Mapping[str, Any]) -> bool:
    """Say whether the signature among ``facts`` is by the public key among them.

    Raises:
        KeyError: There is no signature.
        ValueError: A field is not hexadecimal of the right length.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(facts["public_key"]))
    try:
        key.verify(bytes.fromhex(facts["signature"]), _signed_bytes(facts))
    except InvalidSignature:
        return False
    return True


def require_key(path: Path) -> None:
    """Refuse a signing key that cannot be used, before anything is spent."""
    _private_key(path)


def public_hex(path: Path) -> str:
    """Return the public key in a PEM file, as 64 hexadecimal digits."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path)
    return key.public_bytes_raw().hex()


def _signed_bytes(facts: Mapping[str, Any]) -> bytes:
    return canonical({name: value for name, value in facts.items() if name not in _FIELDS})


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return key


def _no_key(path: Path) -> InvalidRequest:
    return InvalidRequest(
        f"The key {path} was to be used for a signature.",
        "It is no Ed25519 key in a PEM file without a passphrase.",
        "Make one with `openssl genpkey -algorithm ed25519`.",
    )
