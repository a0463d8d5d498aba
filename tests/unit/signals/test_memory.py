from router.signals.memory import SignalBook
from router.signals.snapshot import ModelTotals


def test_totals_add_up_arrivals_and_keep_captive_ones_apart() -> None:
    book = SignalBook()
    signals = book.model("fraud")

    signals.arrived(work_s=0.5, serverless_usd=0.25, is_captive=False)
    signals.arrived(work_s=2.0, serverless_usd=0.0, is_captive=True)

    assert book.totals() == {
        "fraud": ModelTotals(
            arrivals=2, work_s=2.5, serverless_usd=0.25, captive=1, captive_work_s=2.0
        )
    }


def test_models_do_not_share_totals() -> None:
    book = SignalBook()
    book.model("a").arrived(1.0, 1.0, is_captive=False)

    assert book.model("b").totals() == ModelTotals()


def test_totals_are_values_that_later_arrivals_do_not_change() -> None:
    book = SignalBook()
    before = book.model("a").totals()
    book.model("a").arrived(1.0, 1.0, is_captive=False)

    assert before == ModelTotals()


def test_reload_keeps_totals_by_name_and_forgets_removed_models() -> None:
    book = SignalBook()
    kept = book.model("kept")
    book.model("gone")
    kept.arrived(1.0, 1.0, is_captive=False)

    book.model("new")
    book.retain(["kept", "new"])

    assert book.model("kept") is kept
    assert set(book.totals()) == {"kept", "new"}
    assert book.totals()["kept"].arrivals == 1
