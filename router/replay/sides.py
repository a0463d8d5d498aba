"""One configuration's simulation of one model, to be held against another configuration's.

Every side draws the same service times and cold starts for the same requests.
"""

import numpy as np

from router.replay.policies import router_simulation
from router.replay.reading import Part
from router.replay.simulator import Results
from router.replay.tally import Sums, Tally
from router.replay.workload import ModelSetup, Workload
from router.settings.schema import ControllerSettings

_NO_TIMELINE_S = 1e12
"""One interval that holds any trace."""


class Side:
    """A model under the router's own policy, without a timeline; times count from `start_s`."""

    def __init__(
        self, setup: ModelSetup, controller: ControllerSettings, seed: int, start_s: float = 0.0
    ) -> None:
        self._simulation = router_simulation(setup, controller, seed)
        self._tally = Tally(setup, _NO_TIMELINE_S, _NO_TIMELINE_S)
        self._workload = Workload(setup, seed)
        self._start_s = start_s

    def run(self, part: Part, end_s: float = _NO_TIMELINE_S) -> Results:
        """Let the requests through that come from the start on and before `end_s`."""
        block = self._workload.block(part.arrivals, part.senders)
        block = block.between(self._start_s, end_s)
        results = self._simulation.run(block)
        self._tally.add(block, results)
        return results

    def close(self, horizon_s: float) -> Sums:
        """End at the horizon, which counts from the start; replicas are paid for until then."""
        self._tally.add_late(self._simulation.finish(horizon_s))
        paid = np.minimum(self._simulation.replicas.paid(), horizon_s)
        self._tally.close(paid, self._simulation.throttled)
        return self._tally.sums
