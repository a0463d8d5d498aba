"""One endpoint's states and slots as time passes."""

import pytest

from router.backends.pool.endpoint import Endpoint, EndpointState
from router.upstream.address import parse_address
from tests.fakes.builders import NOW


@pytest.fixture
def endpoint():
    endpoint = Endpoint("e", parse_address("http://127.0.0.1:1"), 10)
    endpoint.is_ready = True
    return endpoint


def test_its_slots_grow_over_the_slow_start(endpoint):
    endpoint.begin(NOW)
    seen = []
    for spent_s in (0.0, 2.0, 5.0, 9.9, 10.0):
        done = endpoint.warm_up(NOW + spent_s, 10.0)
        seen.append((endpoint.slots, done))
    assert seen == [(1, False), (2, False), (5, False), (9, False), (10, True)]
    assert endpoint.state(NOW) is EndpointState.READY


def test_a_warming_endpoint_looks_busier_and_never_has_no_slot(endpoint):
    endpoint.resize(2)
    endpoint.begin(NOW)
    endpoint.warm_up(NOW, 10.0)
    endpoint.in_flight = 1
    assert (endpoint.slots, endpoint.load, endpoint.free) == (1, 1.0, 0)
    assert endpoint.state(NOW) is EndpointState.WARMING


def test_without_a_slow_start_all_slots_are_there_at_once(endpoint):
    endpoint.begin(NOW)
    assert endpoint.warm_up(NOW, 0.0)
    assert endpoint.slots == 10


def test_a_slow_one_is_left_alone_for_longer_each_time(endpoint):
    now, pauses = NOW, []
    for _ in range(6):
        endpoint.set_aside_as_slow(now)
        began = now
        while endpoint.is_slow(now):
            now += 0.5
        pauses.append(now - began)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    endpoint.set_aside_as_slow(now + 120.0)
    assert not endpoint.is_slow(now + 121.0), "two good minutes are enough"


def test_what_it_did_before_it_was_set_aside_is_forgotten(endpoint):
    endpoint.recent.append((300, 9.0))
    endpoint.set_aside_as_slow(NOW)
    assert not endpoint.recent


def test_the_state_that_matters_most_is_told(endpoint):
    for _ in range(3):
        endpoint.circuit.failed(NOW)
    seen = [endpoint.state(NOW)]
    endpoint.is_ready = False
    seen.append(endpoint.state(NOW))
    endpoint.is_draining = True
    seen.append(endpoint.state(NOW))
    assert seen == [EndpointState.EJECTED, EndpointState.NOT_READY, EndpointState.DRAINING]
