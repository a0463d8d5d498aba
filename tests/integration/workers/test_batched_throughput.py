"""What batching is for: MatMul models answer several times more requests."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.fakes.models import write_mlp
from workers.batching import Batcher, BatchQueue
from workers.service import Catalog, Model

REQUESTS = 128


async def seconds(model: Model, max_batch: int) -> float:
    """What `REQUESTS` concurrent requests take of the processor, their results checked."""
    x = np.random.default_rng(7).standard_normal((REQUESTS, 1, 2048)).astype(np.float32)
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(model.run, executor, BatchQueue(max_batch, 0.0), REQUESTS, 1)
        started = time.process_time()
        outcomes = await asyncio.gather(*(batcher.submit({"x": row}) for row in x))
        elapsed = time.process_time() - started
    expected = model.run({"x": x[:, 0]})[0]
    got = np.concatenate([outcome.results[0] for outcome in outcomes])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    return elapsed


async def test_batched_matmul_model_is_much_faster(tmp_path: Path) -> None:
    write_mlp(tmp_path, "wide", width=2048, layers=2, options={"batching": {"max_batch": 32}})
    model = await asyncio.to_thread(Catalog(tmp_path).load, "wide")
    alone = min([await seconds(model, 1) for _ in range(2)])
    batched = min([await seconds(model, 32) for _ in range(2)])
    # More than 5x where nothing disturbs.
    assert alone / batched > 3
