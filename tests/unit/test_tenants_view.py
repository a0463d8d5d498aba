from rich.console import Console

from router.commands.tenants import render

DOCUMENT = {
    "requests": {"batch": {"ok": 90, "rate_limited": 10}, "": {"client_error": 3}},
    "cost_usd": {
        "batch": {"serverless": 1.0, "warm_busy": 2.0}, "shop": {"serverless": 6.0},
        "": {"warm_idle": 1.0},
    },
    "tokens": {"batch": {"input": 1000, "output": 24}}, "gb_s": {"batch": {"": 0.5}},
    "refusals": {"night": {"rate_limited": 10}, "": {"unauthorized": 3}},
    "budgets": {"batch": {"day": {"usd": 4.0, "spent_usd": 3.0}}},
}  # fmt: skip


def test_who_pays_most_comes_first_and_who_is_refused_is_told() -> None:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(render(DOCUMENT))
    lines = [" ".join(line.split()) for line in capture.get().splitlines()]
    assert lines[1:] == [
        "shop 0 0 0 0.000 6.000000 60.0",
        "batch 100 10 1024 0.500 3.000000 30.0 75 % of 4/day",
        "(nobody) 3 3 0 0.000 1.000000 10.0",
        "10.000000 USD since the start",
        "",
        "key cause count",
        "night rate_limited 10",
        "(none) unauthorized 3",
    ]
