"""Weights and data sets from the internet, asked for once: without a connection the answer comes
at once."""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
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

    holders: list[Any] = [constants]
    if "datasets" in sys.modules:  # it keeps a copy of the switch from the moment of its import
        holders.append(sys.modules["datasets"].config)
    before = [holder.HF_HUB_OFFLINE for holder in holders]
    offline = not hub_reachable()
    try:
        for holder, was in zip(holders, before, strict=True):
            holder.HF_HUB_OFFLINE = was or offline
        yield
    finally:
        for holder, was in zip(holders, before, strict=True):
            holder.HF_HUB_OFFLINE = was
