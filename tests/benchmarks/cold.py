"""Many clients at once, to a system that has just started: what its first seconds are like."""

from collections.abc import Iterable
from itertools import count

from tests.benchmarks.children import free_port
from tests.benchmarks.load import Bodies
from tests.benchmarks.results import Sample, ScenarioResult
from tests.benchmarks.rounds import Bench, interleaved, measure_from_the_start, verify
from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.systems.system import Site, System


def run_cold_scenario(
    bench: Bench, scenario: Scenario, systems: Iterable[System], rounds: int, seconds: float
) -> ScenarioResult:
    """Measure the systems that take this scenario, each started anew for every round."""
    bodies = Bodies.write(bench.folder / f"{scenario.name}.body", scenario.bodies)
    taking = {system.name: system for system in systems if system.takes(scenario)}
    numbers = count()

    def measured(name: str) -> Sample:
        system = taking[name]
        folder = bench.folder / f"{scenario.name}-{next(numbers)}"
        folder.mkdir()
        site = Site(folder, free_port(), bench.upstream.port)
        with system.run(site, bench.tools) as live:
            verify(bench.upstream, scenario, live.port, is_exact=system.is_exact)
            return measure_from_the_start(bench, scenario, live, bodies, seconds)

    rows = interleaved(bench.tell, scenario.name, list(taking), measured, rounds)
    return ScenarioResult(scenario.name, scenario.title, rows)
