"""What the environment says of the way out to the network, checked before anything is asked.

Clients read these variables themselves, each in its own words and at its first call: a wrong one ends in a
traceback hours after the start, or is told as a network that is down. No value of a proxy is shown, as it may
hold a password.
"""

from __future__ import annotations

import ssl
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import get_token
from huggingface_hub.constants import HF_HUB_OFFLINE

from forecaster.errors import Problem
from forecaster.settings import named_variables

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_WITHOUT_PACKAGES = ("http", "https")
_WITH_PACKAGES = ("socks5", "socks5h")
_SOCKS_PACKAGES = {"socksio": "socksio", "socks": "PySocks"}
"""Module to package; httpx2 wants the first, requests the second."""
_PROXY_HELP = "Use one of the kind http://HOST:PORT, or unset it for this command."
_CERTIFICATE_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_MAY_BE_FOLDERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_CERTIFICATE_HELP = "Name a file of certificates (PEM), or unset it."


def network_problems() -> list[Problem]:
    """Proxies and certificates that no call to a server would go by."""
    return [*_proxy_problems(), *_certificate_problems()]


def hub_problems() -> list[Problem]:
    """The same for calls to the hub, and a token that can be none; nothing where the hub is not asked."""
    if HF_HUB_OFFLINE:
        return []
    token = get_token() or ""
    if token.isascii() and token.isprintable():
        return network_problems()
    found = "holds characters that no token has, such as curly quotes."
    return [Problem("HF_TOKEN", found, "Copy it anew, without quotes around it."), *network_problems()]


def _proxy_problems() -> list[Problem]:
    names = [spelling for name in _PROXIES for spelling in (name, name.lower())]
    return [
        Problem(name, found, way_out)
        for name, value in named_variables(names).items()
        for found, way_out in [_proxy_fault(value)]
        if found
    ]


def _proxy_fault(value: str) -> tuple[str, str]:
    """What is wrong with a proxy, and the way out; empty texts where nothing is."""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, _ = parts.hostname, parts.port  # the port of a wrong one cannot be asked for
    except ValueError:
        return "names a proxy that is no address.", _PROXY_HELP
    kind = parts.scheme
    if kind in _WITH_PACKAGES:
        lacking = [package for module, package in _SOCKS_PACKAGES.items() if find_spec(module) is None]
        if lacking:
            way_out = f"pip install {' '.join(lacking)}, or unset it for this command."
            return f"names a proxy of the kind {kind}, without the packages for it.", way_out
    elif kind not in _WITHOUT_PACKAGES:
        kinds = ", ".join((*_WITHOUT_PACKAGES, *_WITH_PACKAGES))
        return f"names a proxy of the kind {kind[:20]}, which is none of {kinds}.", _PROXY_HELP
    return ("", "") if host else ("names a proxy without a host.", _PROXY_HELP)


def _certificate_problems() -> list[Problem]:
    problems = []
    for name, value in named_variables(_CERTIFICATE_FILES).items():
        path = Path(value)
        is_folder = path.is_dir() and name in _MAY_BE_FOLDERS
        if not is_folder and (fault := _certificate_fault(path)):
            problems.append(Problem(name, f"names {path}, {fault}.", _CERTIFICATE_HELP))
    for name, value in named_variables(["SSL_CERT_DIR"]).items():
        if not any(Path(folder).is_dir() for folder in value.split(":")):
            way_out = "Name a folder of certificates, or unset it."
            problems.append(Problem(name, f"names {value}, which is no folder.", way_out))
    return problems


def _certificate_fault(path: Path) -> str:
    try:
        ssl.create_default_context(cafile=str(path))
    except FileNotFoundError:
        return "which is not there"
    except ssl.SSLError:
        return "which holds no certificate"
    except OSError as error:
        return f"which cannot be read ({error.strerror})"
    return ""
