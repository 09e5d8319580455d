"""Weights from the internet, asked for once: without a connection the answer comes at once."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import urlsplit

SECONDS = 2.0


@lru_cache(maxsize=32)
def reachable(url: str) -> bool:
    """Whether the host of ``url``, or the proxy that stands before it, takes a connection within
    two seconds. Asked once a process for each address."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname or "", port), timeout=SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def hub_reachable() -> bool:
    """Whether the Hugging Face hub may be asked, and answers."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and reachable(constants.ENDPOINT)


@contextmanager
def cache_alone_if_offline() -> Iterator[None]:
    """Within: where the hub cannot be reached, its client looks into its cache and asks nobody,
    instead of trying again and again for the better part of a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not hub_reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
