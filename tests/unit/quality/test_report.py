"""The report shows what the document says, and names that are hostile do no harm in it."""

from random import Random
from xml.etree import ElementTree

import numpy as np

from router.policy.rollback import RollbackParams
from router.quality.drift import DriftParams
from router.quality.monitor import Monitor, Said
from router.quality.predictions import Prediction, Reading, Task
from router.quality.report import page
from router.quality.rollout import Rollout
from router.quality.samples import Origin, Place, QualityParams
from router.quality.subject import Opinion, Subject
from router.quality.view import document

EVIL = "<script>alert(1)</script>"
ROLLBACK = RollbackParams(50, 300.0, 0.02, 0.25, 0.95, 0.999, accuracy_margin=0.01)


def monitor() -> Monitor:
    found, rng = Monitor(Random(1)), np.random.default_rng(1)
    params = QualityParams(
        reading=Reading(Task.CLASSIFICATION), first=100, drift=DriftParams(samples=100)
    )
    found.configure({EVIL: params})
    subject = found.subjects[EVIL, EVIL] = Subject(params, None, 0.0)
    for at, value in enumerate(rng.normal(size=300)):
        shifted = value + 5 * (at >= 200)
        subject.sample({f"in:{EVIL}": shifted, "out:class": float(value > 0)}, at * 100.0)
    place = Place("rule", "canary", "settings 0", ROLLBACK)
    found.rollouts["rule"] = Rollout("settings 0", ROLLBACK)
    for at in range(30):
        origin = Origin(EVIL, EVIL, "t", place)
        said = Said(origin, Prediction("1", 0.0, 0.8), Opinion(truth=str(at % 2)), at * 600.0)
        found.opinion(said)
    return found


def test_the_page_is_well_formed_and_holds_distributions_accuracy_and_alarms():
    text = page(EVIL, document(monitor()), "today")
    assert EVIL not in text
    body = text.replace("<!doctype html>", "").replace('<meta charset="utf-8">', "")
    root = ElementTree.fromstring(body)
    drawn = [svg.get("aria-label", "") for svg in root.iter("svg")]
    assert "share of right answers by hour" in drawn
    assert f"distribution of in:{EVIL}" in drawn
    words = "".join(root.itertext())
    assert "Kolmogorov" not in words.split("Alarms")[0]
    assert "PSI" in words
    assert "Canary of rule rule" in words


def test_a_model_without_samples_has_a_page_too():
    assert "Nothing has been sampled yet" in page("m", document(Monitor(Random(1))), "today")
