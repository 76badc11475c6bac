"""Proxies, certificates and tokens that no call would go by are named before any call."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest

from forecaster import network_settings
from forecaster.data import sources
from forecaster.errors import ConfigurationError
from forecaster.models.registry import BaseModel
from forecaster.network_settings import hub_problems, network_problems
from forecaster.settings import Settings
from forecaster.training.train_config import find_access_problems

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
NAMES += ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HF_TOKEN")
PROXY_HELP = "Use one of the kind http://HOST:PORT, or unset it for this command."
KINDS = "http, https, socks5, socks5h"


@pytest.fixture(autouse=True)
def none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def told() -> list[str]:
    return [str(problem) for problem in network_problems()]


@pytest.mark.parametrize("name", NAMES[:6])
def test_a_proxy_of_a_kind_that_no_client_knows_is_named_by_its_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "socks://user:canary-password@127.0.0.1:7891")
    assert told() == [f"{name}: names a proxy of the kind socks, which is none of {KINDS}. {PROXY_HELP}"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("http://127.0.0.1:7890", ""),
        ("127.0.0.1:7890", ""),
        ("HTTPS://proxy.example.com", ""),
        ("http://[::1]:8080", ""),
        ("http://user:canary-password@host:1", ""),
        ("http://host:abc", "names a proxy that is no address."),
        ("http://host:99999", "names a proxy that is no address."),
        ("http://[::1", "names a proxy that is no address."),
        ("http://", "names a proxy without a host."),
        ("socks4://host:1", f"names a proxy of the kind socks4, which is none of {KINDS}."),
        ("htp://canary-password@host", f"names a proxy of the kind htp, which is none of {KINDS}."),
        ("file:///x", f"names a proxy of the kind file, which is none of {KINDS}."),
    ],
)
def test_a_proxy_has_an_address_of_a_known_kind(
    value: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    assert told() == ([f"ALL_PROXY: {found} {PROXY_HELP}"] if found else [])


def test_a_socks_proxy_needs_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:7891")
    monkeypatch.setattr(network_settings, "find_spec", lambda module: None)
    assert told() == [
        "ALL_PROXY: names a proxy of the kind socks5h, without the packages for it. "
        "pip install socksio PySocks, or unset it for this command."
    ]
    monkeypatch.setattr(network_settings, "find_spec", lambda module: "there")
    assert told() == []


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_file_of_certificates_is_there_and_holds_some(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    help_ = "Name a file of certificates (PEM), or unset it."
    monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
    assert told() == [f"{name}: names {tmp_path}/ca.pem, which is not there. {help_}"]
    (tmp_path / "ca.pem").write_text("no certificate")
    assert told() == [f"{name}: names {tmp_path}/ca.pem, which holds no certificate. {help_}"]
    (tmp_path / "ca.pem").write_bytes(Path(certifi.where()).read_bytes())
    assert told() == []
    monkeypatch.setenv(name, str(tmp_path))
    assert len(told()) == (name == "SSL_CERT_FILE")  # the others may be folders


def test_one_folder_of_certificates_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere/certs")
    assert told() == [
        "SSL_CERT_DIR: names /nowhere/certs, which is no folder. Name a folder of certificates, or unset it."
    ]
    monkeypatch.setenv("SSL_CERT_DIR", f"/nowhere/certs:{tmp_path}")
    assert told() == []


def test_the_hub_is_not_asked_with_a_token_that_none_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "“hf_canary”")
    found = [str(problem) for problem in hub_problems()]
    assert found == [
        "HF_TOKEN: holds characters that no token has, such as curly quotes. Copy it anew, without quotes "
        "around it."
    ]
    monkeypatch.setattr(network_settings, "HF_HUB_OFFLINE", True)
    assert hub_problems() == []


def test_only_what_is_taken_from_the_hub_needs_the_way_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:7891")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert len(sources.resolve("rows.jsonl", True, "--dataset")) == 1
    with pytest.raises(ConfigurationError, match="ALL_PROXY: names a proxy"):
        sources.resolve("someone/rows", True, "--dataset")
    assert find_access_problems(BaseModel("folder", is_local=True), Settings()) == []
    (problem,) = find_access_problems(BaseModel("someone/model", is_local=False), Settings())
    assert problem.where == "ALL_PROXY"
