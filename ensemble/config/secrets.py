"""Finds secrets in what people configure: they would be stored with the run, shown and sent on."""

from __future__ import annotations

import re
from typing import Any

_WORDS = frozenset({
    "key", "keys", "apikey", "token", "tokens", "secret", "secrets", "password", "passwords", "passwd", "passphrase",
    "pwd", "credential", "credentials",
})  # fmt: skip
# scheme://user:password@host, and the same without a scheme; host:8080/a@b is neither.
_IN_ADDRESS = re.compile(r"://[^/?#@\s]*:(?!\d+/)\S*@|^[^/:@\s]+:[^/@\s]+@[\w.-]+(:\d+)?(/|$)")
_IN_QUERY = re.compile(
    r"://.*[?&;][^=&;]*(key|token|secret|passw(or)?d|signature|sig|credential)[^=&;]*=[^&;]", re.IGNORECASE
)
# What reads a secret from the environment, by the beginning of the address.
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "s3a": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "ray": "RAY_AUTH_TOKEN",
}
# The same by what takes the address, where it has variables of its own.
_BY_KEY = {
    "tracking.mlflow.uri": "MLFLOW_TRACKING_URI, or for a server MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,"
}


def names_secret(key: str) -> bool:
    """True for a key such as api_key or password."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower())
    return not _WORDS.isdisjoint(words)


def secret_in(value: Any, key: str = "") -> str | None:
    """What to do about a secret in an address, as half a sentence that does not repeat it; None where there is none.

    key: of the configuration, dotted, where the address stands there.
    """
    if not isinstance(value, str) or not (_IN_ADDRESS.search(value) or _IN_QUERY.search(value)):
        return None
    scheme, found, _ = value.partition("://")
    protocol = scheme.rpartition(" ")[2].lower() if found else "ray"
    variable = _BY_KEY.get(key) or _VARIABLES.get(
        protocol, f"FSSPEC_{re.sub('[^A-Z0-9]', '_', protocol.upper())}_PASSWORD and the like"
    )
    return f"this {protocol + ':// ' if found else ''}address holds a secret, which would be stored and shown; leave it out of the address and set {variable} in the environment"
