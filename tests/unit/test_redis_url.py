import pytest

from router.domain.redis_url import MAX_HOSTS, Topology, parse_redis_url


@pytest.mark.parametrize(
    "text",
    [
        "redis://h", "redis://:pw@h:1/2", "rediss://u:p%40@h:6379/0?ssl_ca_certs=/ca.pem",
        "unix:///run/redis.sock", "redis://[::1]:6379",
    ],
)  # fmt: skip
def test_one_server_is_passed_on_as_it_is(text: str):
    found = parse_redis_url(text)
    assert (found.topology, found.single, found.hosts) == (Topology.SINGLE, text, ())
    assert found.namespace("a") == "a"


def test_sentinels_have_hosts_a_service_and_logins_of_their_own():
    found = parse_redis_url(
        "rediss+sentinel://app:s%2F@a:1,[::1],c/main/3"
        "?sentinel_username=watch&sentinel_password=w%26&ssl_ca_certs=%2Fca.pem"
    )
    assert found.topology is Topology.SENTINEL
    assert found.hosts == (("a", 1), ("::1", 26379), ("c", 26379))
    assert (found.service, found.sentinel_username, found.sentinel_password) == (
        "main", "watch", "w&",
    )  # fmt: skip
    assert found.single == "rediss://app:s%2F@unused/3?ssl_ca_certs=%2Fca.pem"
    assert found.namespace("a") == "a"


def test_the_keys_of_a_cluster_share_a_slot():
    found = parse_redis_url("redis+cluster://u:p@a,b:7000")
    assert (found.topology, found.hosts) == (Topology.CLUSTER, (("a", 6379), ("b", 7000)))
    assert found.single == "redis://u:p@unused/"
    assert found.namespace("a") == "{a}"


def test_no_password_is_shown():
    text = repr(parse_redis_url("redis+sentinel://u:geheim@h/s?sentinel_password=geheimer"))
    assert "geheim" not in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://h", "not a Redis URL"),
        ("redis+ring://h", "not a Redis URL"),
        ("unix://", "not a Redis URL"),
        ("unix+cluster:///s", "not a Redis URL"),
        ("redis://", "no host"),
        ("redis://h:0", "no host"),
        ("redis+cluster://", "no host"),
        ("redis+cluster://a,,b", "no host"),
        ("redis+cluster://a/1", "one database"),
        ("redis+cluster://" + ",".join(["h"] * (MAX_HOSTS + 1)), "at most"),
        ("redis+sentinel://h", "name of their master"),
        ("redis+sentinel://h/main/x", "no such path"),
        ("redis+sentinel://h/main/0/1", "no such path"),
        ("redis://h?socket_timeout=9", "no option 'socket_timeout'"),
        ("redis+cluster://h?sentinel_password=x", "no option 'sentinel_password'"),
        ("redis://h#f", "no fragment"),
    ],
)
def test_what_is_none_is_refused_in_words(text: str, words: str):
    with pytest.raises(ValueError, match=words):
        parse_redis_url(text)


@pytest.mark.parametrize(
    "text",
    ["redis://h:99999", "redis://[::1", "redis+cluster://a:x", "redis+cluster://u:geheim/@a,b:1"],
)
def test_so_is_what_no_url_can_be_without_quoting_it(text: str):
    with pytest.raises(ValueError, match="not a Redis URL") as raised:
        parse_redis_url(text)
    assert "geheim" not in str(raised.value)
    assert raised.value.__suppress_context__
