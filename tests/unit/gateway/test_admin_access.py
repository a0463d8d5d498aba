"""Who may use the admin port, judged from a request's head."""

import pytest

from router.gateway.admin.admin_access import AdminAccess, AdminHead, refusal_of
from router.settings.admin_token import AdminToken
from router.settings.server import ServerSettings

TOKEN = "5f" * 16


def access(token: bool = False, **settings: object) -> AdminAccess:
    found = AdminToken.read(TOKEN.encode()) if token else None
    return AdminAccess(ServerSettings.model_validate(settings), found)


def head(path: str = "/v1/status", **facts: object) -> AdminHead:
    usual: dict[str, object] = {
        "path": path,
        "hosts": ("127.0.0.1:9090",),
        "origins": (),
        "fetch_site": "",
        "authorization": "",
        "reached": "10.0.0.7",
    }
    return AdminHead(**{**usual, **facts})  # type: ignore[arg-type]


def status_of(given: AdminHead, rules: AdminAccess) -> int:
    found = refusal_of(given, rules)
    return 200 if found is None else found.status


OWN = [
    "localhost", "localhost:9090", "localhost.", "127.0.0.1:1", "127.8.8.8", "[::1]:9090",
    "10.0.0.7", "10.0.0.7:9090", "192.0.2.4:9090", "admin.example.org", "admin.example.org:443",
    "fleet",
]  # fmt: skip
FOREIGN = [
    "", "evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example",
    "10.0.0.8", "evil.localhost", "127.0.0.1:9090@evil.example", "evil.example/127.0.0.1",
    "127.0.0.1:port", "[::1", "127.0.0.1, evil.example", "0x7f000001", "admin.example.org.evil",
]  # fmt: skip


@pytest.mark.parametrize(
    ("host", "status"), [*((host, 200) for host in OWN), *((host, 403) for host in FOREIGN)]
)
def test_only_names_that_are_surely_this_machines_are_taken(host: str, status: int) -> None:
    rules = access(admin_listen="192.0.2.4:9090", admin_hosts=["Admin.Example.org", "fleet"])
    assert status_of(head(hosts=(host,)), rules) == status


def test_a_connection_to_an_ipv6_address_of_its_own_is_taken() -> None:
    host = ("[fd00:0::7]:9090",)
    assert status_of(head(hosts=host, reached="fd00::7"), access()) == 200
    assert status_of(head(hosts=host, reached="fd00::8"), access()) == 403
    assert status_of(head(hosts=("[fe80::1]",), reached="fe80::1%eth0"), access()) == 200


def test_one_foreign_host_of_several_is_enough() -> None:
    assert status_of(head(hosts=("127.0.0.1", "evil.example")), access()) == 403


def test_a_client_without_a_host_is_no_browser() -> None:
    assert status_of(head(hosts=()), access()) == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:9090", 200),
        ("https://127.0.0.1:9090", 200),
        ("http://127.0.0.1:3000", 403),
        ("http://localhost:9090", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str, status: int) -> None:
    assert status_of(head(origins=(origin,)), access()) == status
    assert status_of(head(path="/healthz", origins=(origin,)), access(token=True)) == status


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("", 200), ("cross-site", 403)]
)
def test_requests_from_other_sites_are_refused(site: str, status: int) -> None:
    assert status_of(head(fetch_site=site), access()) == status


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN} ", 200),
        ("", 401),
        (TOKEN, 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer", 401),
    ],
)
def test_the_token_has_to_be_presented(given: str, status: int) -> None:
    assert status_of(head(authorization=given), access(token=True)) == status


@pytest.mark.parametrize(
    ("path", "open_status", "metrics_status"),
    [
        ("/healthz", 200, 200),
        ("/readyz", 200, 200),
        ("/metrics", 200, 401),
        ("/v1/config", 401, 401),
        ("/v1/drain", 401, 401),
        ("/metrics/", 401, 401),
        ("/unknown", 401, 401),
    ],
)
def test_probes_need_no_token_and_metrics_have_a_switch(
    path: str, open_status: int, metrics_status: int
) -> None:
    assert status_of(head(path), access(token=True)) == open_status
    assert status_of(head(path), access(token=True, admin_metrics_token=True)) == metrics_status


def test_every_refusal_says_what_to_do() -> None:
    for given, told in (
        (head(hosts=("evil.example",)), "server.admin_hosts"),
        (head(origins=("null",)), "Origin"),
        (head(fetch_site="cross-site"), "Sec-Fetch-Site"),
        (head(), "Authorization: Bearer"),
    ):
        found = refusal_of(given, access(token=True))
        assert found is not None
        assert told in found.text
