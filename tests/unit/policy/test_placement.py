from hypothesis import given
from hypothesis import strategies as st

from router.policy.placement import Tenant, place


def placed(tenants, loaded, room_bytes=0):
    return {id_: set(names) for id_, names in place(tenants, loaded, room_bytes).items()}


class TestPlace:
    def test_with_room_for_all_every_replica_has_every_model_that_works(self):
        tenants = {"a": Tenant(5, 0.1), "b": Tenant(5, 0.2), "idle": Tenant(5, 0.0)}
        assert placed(tenants, {"1": [], "2": []}) == {"1": {"a", "b"}, "2": {"a", "b"}}

    def test_a_model_without_work_stays_where_it_is_as_long_as_nobody_needs_its_room(self):
        tenants = {"a": Tenant(5, 0.1), "idle": Tenant(5, 0.0)}
        assert placed(tenants, {"1": ["idle"]}, 10) == {"1": {"a", "idle"}}
        assert placed(tenants, {"1": ["idle"]}, 9) == {"1": {"a"}}

    def test_models_are_spread_by_their_work_where_memory_is_short(self):
        tenants = {name: Tenant(4, load) for name, load in zip("abcd", (4, 3, 2, 1), strict=True)}
        found = place(tenants, {"1": [], "2": []}, 8)
        loads = [sum(tenants[name].load for name in names) for names in found.values()]
        assert sorted(map(len, found.values())) == [2, 2]
        assert set().union(*found.values()) >= {"a", "b"}
        assert max(loads) <= 7

    def test_the_most_work_for_its_memory_comes_first(self):
        tenants = {"large": Tenant(8, 0.5), "small": Tenant(2, 0.4), "other": Tenant(6, 0.3)}
        assert placed(tenants, {"1": []}, 8) == {"1": {"small", "other"}}

    def test_a_model_goes_where_it_is_loaded_already(self):
        tenants = {"a": Tenant(5, 0.1), "b": Tenant(5, 0.1)}
        loaded = {"1": ["b"], "2": ["a"]}
        assert placed(tenants, loaded, 5) == {"1": {"b"}, "2": {"a"}}

    def test_slightly_more_work_drives_out_nobody(self):
        tenants = {"new": Tenant(5, 0.15), "old": Tenant(5, 0.1)}
        assert placed(tenants, {"1": ["old"]}, 5) == {"1": {"old"}}
        tenants = {"new": Tenant(5, 0.25), "old": Tenant(5, 0.1)}
        assert placed(tenants, {"1": ["old"]}, 5) == {"1": {"new"}}

    def test_what_requests_wait_for_comes_before_everything_else(self):
        tenants = {"new": Tenant(5, 0.0, is_awaited=True), "old": Tenant(5, 2.0)}
        assert placed(tenants, {"1": ["old"]}, 5) == {"1": {"new"}}

    def test_a_model_that_needs_several_replicas_has_them(self):
        tenants = {"hot": Tenant(5, 1.3), "warm": Tenant(5, 0.2)}
        found = placed(tenants, {"1": [], "2": [], "3": []}, 5)
        assert sorted(map(sorted, found.values())) == [["hot"], ["hot"], ["warm"]]

    def test_nothing_moves_when_nothing_has_changed(self):
        tenants = {f"m{n}": Tenant(3 + n % 4, 0.05 * (n % 7)) for n in range(20)}
        loaded: dict[str, list[str]] = {str(n): [] for n in range(4)}
        first = place(tenants, loaded, 20)
        assert placed(tenants, first, 20) == {id_: set(names) for id_, names in first.items()}

    def test_what_nobody_serves_any_more_is_not_kept(self):
        assert placed({"a": Tenant(1, 0.1)}, {"1": ["gone"]}) == {"1": {"a"}}


@given(
    st.dictionaries(
        st.sampled_from([f"m{n}" for n in range(12)]),
        st.builds(Tenant, st.integers(0, 10), st.floats(0, 3)),
    ),
    st.integers(1, 4),
    st.integers(1, 30),
)
def test_no_replica_has_more_than_its_room_and_work_that_fits_has_a_home(tenants, count, room):
    found = place(tenants, {str(n): [] for n in range(count)}, room)
    for names in found.values():
        assert sum(tenants[name].memory_bytes for name in names) <= room
    left = {name for name, one in tenants.items() if one.load > 0}.difference(*found.values())
    for name in left:  # nowhere is there room for it
        need = tenants[name].memory_bytes
        taken = [sum(tenants[one].memory_bytes for one in names) for names in found.values()]
        assert all(sum_ + need > room for sum_ in taken)
