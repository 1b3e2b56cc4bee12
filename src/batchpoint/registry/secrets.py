"""Encryption of stored credentials, and keys for signatures.

The key of both lies in a file beside the registry, readable by its owner alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from batchpoint.errors import RegistryError


class SecretBox:
    """Encrypts and decrypts small values with the key in ``key_file``, which is made when it is missing."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        self._key = _read_or_create(key_file)
        self._fernet = Fernet(self._key)

    def encrypt(self, values: dict[str, Any]) -> bytes:
        """Encrypt JSON values."""
        return self._fernet.encrypt(json.dumps(values).encode())

    def signing_key(self, purpose: str) -> bytes:
        """A key for signatures of one purpose. It tells nothing about the key it comes from, nor about the others."""
        return hmac.digest(self._key, purpose.encode(), hashlib.sha256)

    def decrypt(self, encrypted: bytes) -> dict[str, Any]:
        """What was encrypted.

        Raises:
            RegistryError: it was encrypted with another key.
        """
        try:
            values: dict[str, Any] = json.loads(self._fernet.decrypt(encrypted))
        except InvalidToken as error:
            message = (
                f"Stored credentials cannot be read with the key in {self._key_file}: they were stored with another "
                "one. Bring the old key file back, or give the credentials anew."
            )
            raise RegistryError(message) from error
        return values


def _read_or_create(key_file: Path) -> bytes:
    """The key; of several processes that make one at once, one wins."""
    if not key_file.exists():
        key_file.parent.mkdir(parents=True, exist_ok=True)
        draft = key_file.with_name(f"{key_file.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(Fernet.generate_key())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, key_file)
        except FileExistsError:
            pass  # another process was quicker; its key counts
        finally:
            draft.unlink()
    key = key_file.read_bytes().strip()
    try:
        Fernet(key)
    except ValueError as error:
        message = f"{key_file} does not hold a key. Bring the original back; without it stored credentials are lost."
        raise RegistryError(message) from error
    return key
