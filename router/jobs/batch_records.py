"""What a batch is: a document beside the jobs that are its lines."""

import msgspec

from router.jobs.backlog import Outlook
from router.jobs.records import Kind
from router.jobs.store import Document, JobStore

BATCH_KIND = "batch"
OPEN_KIND = "open batch"
"""Of each batch that has not ended, so that those are found without a look at all others."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


class Batch(msgspec.Struct):
    """A batch as it is told, but for its counts while it runs; `ends_as` is what it will become."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: float
    key: str
    metadata: dict[str, str] | None = None
    status: str = "validating"
    errors: dict[str, object] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: dict[str, int] = msgspec.field(
        default_factory=lambda: {"total": 0, "completed": 0, "failed": 0}
    )
    content: str = ""
    window_s: float = 0.0
    ends_as: str = "completed"

    def told(self, outlook: Outlook | None = None) -> dict[str, object]:
        """What clients are told of it, with what is expected of it while jobs of it wait."""
        told: dict[str, object] = {"object": "batch", **msgspec.structs.asdict(self)}
        for name in ("content", "window_s", "ends_as", "key"):
            del told[name]
        told["expires_at"] = int(self.expires_at)
        if outlook is not None:
            told |= outlook.told()
        return told


def document_of(batch: Batch, tenant: str, version: int) -> Document:
    """A batch as it is kept."""
    return Document(batch.id, tenant, version, msgspec.json.encode(batch))


def batch_of(document: Document) -> Batch:
    """The batch that is kept so."""
    return msgspec.json.decode(document.content, type=Batch)


async def changed(store: JobStore, document: Document, batch: Batch) -> bool:
    """Keep a batch that was changed; False if somebody else was quicker."""
    return await store.put(BATCH_KIND, document_of(batch, document.tenant, document.version + 1))


def step_id(kind: Kind, batch_id: str) -> str:
    """The name of the job that takes this step of a batch."""
    return f"{batch_id}-{kind}"
