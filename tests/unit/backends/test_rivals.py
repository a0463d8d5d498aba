from router.backends.pool.rivals import RESETS, Rivals


def reset(rivals: Rivals, now: float) -> bool:
    rivals.wrote(3)
    return rivals.saw(1, now)


def test_who_insists_has_it():
    rivals = Rivals()
    assert [reset(rivals, 15.0 * number) for number in range(RESETS)] == [False, False, True]
    assert rivals.have_it
    assert not rivals.saw(7, 100.0), "said once"


def test_a_change_counts_once():
    rivals = Rivals()
    rivals.wrote(3)
    for now in range(20):
        rivals.saw(1, float(now))
    assert not rivals.have_it


def test_changes_by_hand_now_and_then_are_overruled():
    rivals = Rivals()
    assert not any(reset(rivals, 400.0 * number) for number in range(20))


def test_what_was_written_is_nobodys_change():
    rivals = Rivals()
    for now in range(10):
        rivals.wrote(3)
        assert not rivals.saw(3, float(now))


def test_what_another_gateway_set_is_nobodys_change():
    rivals = Rivals()
    for now in range(10):
        rivals.wrote(3)
        rivals.paused()
        assert not rivals.saw(1, float(now))
