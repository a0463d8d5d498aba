"""A wire protocol is one file and its line in `registry.PROTOCOLS`: nothing else knows of it."""

from router.domain.errors import NotFoundError
from router.domain.request import AnswerForm
from router.gateway.protocols import registry
from router.gateway.protocols.base import Asked, Question, Target, WireProtocol, require
from tests.fakes.upstreams import ok
from tests.integration.harness import Harness


class Toy(WireProtocol):
    """Bodies are `MODEL TEXT`, and all of it goes to one path."""

    name = "toy"
    answers = AnswerForm.TEXT

    def path(self, action, model, version):
        return f"/toy/{action}"

    def error_document(self, message, code, status):
        return {"oh": f"{status} {code}: {message}"}

    def owns(self, path, headers):
        return path.startswith("/toy/")

    def resolve(self, question: Question):
        match question.segments:
            case ["toy", "say"]:
                require(question.method, "POST")
                return Target(self, "say", None)
            case _:
                raise NotFoundError("a toy says, and no more")

    async def asked(self, body, headers):
        return self.asked_at_once(body)

    def asked_at_once(self, body):
        model, _, text = body.partition(b" ")

        async def renamed(body, model):
            return model.encode() + b" " + text

        return Asked(model.decode(), renamed=renamed)


async def test_it_is_routed_renamed_answered_and_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "PROTOCOLS", (Toy(), *registry.PROTOCOLS))
    async with Harness(tmp_path, warm=[ok(b"hello")], model={"served_as": "n"}) as gateway:
        reply = await gateway.infer(b"m hello", "/toy/say")
        unknown = await gateway.infer(b"x hello", "/toy/say")
        nowhere = await gateway.infer(b"m hello", "/toy/sing")
        (received,) = gateway.warm[0].received
        ids = [answer.headers["x-request-id"] for answer in (reply, unknown, nowhere)]
        logged = {(await gateway.logged(each))["protocol"] for each in ids}
    assert (reply.status, reply.body) == (200, b"hello")
    assert (received.target, received.body) == ("/toy/say", b"n hello")
    assert unknown.status == nowhere.status == 404
    assert unknown.json()["oh"].startswith("404 model_not_found")
    assert nowhere.json() == {"oh": "404 not_found: a toy says, and no more"}
    assert logged == {"toy"}
