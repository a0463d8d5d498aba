"""Metrics are scikit-learn's on the raw labels, and sums of sums are the sums."""

import json

import numpy as np
import pytest
from sklearn import metrics as theirs

from router.quality.predictions import (
    LabelError,
    Prediction,
    Reading,
    Task,
    judge,
    predictions_of,
    truth_of,
)
from router.quality.scores import MAX_PAIRS, Classified, Scores, metrics
from router.quality.tensors import Tensor

BINARY = Reading(Task.CLASSIFICATION)


def tensor(values, datatype="FP32"):
    values = np.asarray(values, np.float32)
    return Tensor(datatype, values.shape, values.reshape(-1))


def judged(probabilities, labels, reading=BINARY):
    scores = Scores()
    for row, label in zip(probabilities, labels, strict=True):
        (prediction,) = predictions_of(reading, {"y": tensor([row])})
        judge(reading, prediction, truth_of(reading, int(label)), scores)
    return scores


@pytest.fixture(scope="module")
def binary():
    rng = np.random.default_rng(1)
    positive = rng.random(800).astype(np.float32)
    labels = (rng.random(800) < positive**2).astype(int)
    return np.stack([1 - positive, positive], axis=1), labels


def test_metrics_of_classes_are_scikit_learns(binary):
    shares, labels = binary
    found = metrics(judged(shares, labels))
    exactly = shares / shares.sum(axis=1, keepdims=True, dtype=np.float64)
    predicted = shares.argmax(axis=1)
    exact = {
        "accuracy": theirs.accuracy_score(labels, predicted),
        "precision": theirs.precision_score(labels, predicted, average="macro"),
        "recall": theirs.recall_score(labels, predicted, average="macro"),
        "f1": theirs.f1_score(labels, predicted, average="macro"),
        "log_loss": theirs.log_loss(labels, exactly),
    }
    for name, value in exact.items():
        assert found[name].value == pytest.approx(value, rel=1e-4), name
        assert found[name].low <= value <= found[name].high
        assert found[name].size == 800
    assert found["auc"].value == pytest.approx(
        theirs.roc_auc_score(labels, shares[:, 1]), abs=1 / 128
    )
    # Of two classes, the Brier score over both is twice that of one.
    assert found["brier"].value == pytest.approx(
        2 * theirs.brier_score_loss(labels, shares[:, 1]), rel=1e-4
    )


def test_calibration_is_its_definition(binary):
    shares, labels = binary
    confidence, is_right = shares.max(axis=1), shares.argmax(axis=1) == labels
    at = np.minimum(14, (confidence * 15).astype(int))
    expected = sum(
        abs(confidence[at == k].sum() - is_right[at == k].sum()) for k in range(15)
    ) / len(labels)
    assert metrics(judged(shares, labels))["ece"].value == pytest.approx(expected, abs=1e-5)


def test_metrics_of_numbers_are_scikit_learns():
    rng = np.random.default_rng(2)
    truth, value = rng.normal(5, 1, 300), rng.normal(5, 1, 300)
    scores, reading = Scores(), Reading(Task.REGRESSION, tolerance=0.5)
    for label, each in zip(truth, value, strict=True):
        judge(reading, Prediction(value=float(each)), truth_of(reading, float(label)), scores)
    found = metrics(scores)
    assert found["mae"].value == pytest.approx(theirs.mean_absolute_error(truth, value))
    assert found["rmse"].value == pytest.approx(theirs.root_mean_squared_error(truth, value))
    assert found["mape"].value == pytest.approx(theirs.mean_absolute_percentage_error(truth, value))
    assert found["within_tolerance"].value == pytest.approx(np.mean(abs(truth - value) <= 0.5))


def test_three_gateways_together_are_one(binary):
    shares, labels = binary
    parts = [judged(shares[at::3], labels[at::3]) for at in range(3)]
    total = parts[0]
    total.merge(parts[1])
    total.merge(parts[2])
    whole = metrics(judged(shares, labels))
    assert {name: each.value for name, each in metrics(total).items()} == pytest.approx(
        {name: each.value for name, each in whole.items()}
    )


def test_an_interval_holds_what_is_true_as_often_as_it_says():
    rng, hits = np.random.default_rng(3), 0
    for _ in range(200):
        scores = Scores()
        for right in rng.random(100) < 0.9:
            scores.reward(float(right))
        low, high = metrics(scores)["mean_score"][1:3]
        hits += low <= 0.9 <= high
    assert hits >= 182


def test_a_thousand_classes_are_told_apart_as_far_as_there_is_room():
    scores = Scores()
    for index in range(1000):
        scores.classified(Classified(str(index), str(index)))
    assert len(scores.pairs) <= MAX_PAIRS + 2
    assert sum(scores.pairs.values()) == 1000
    assert metrics(scores)["accuracy"].value == 1.0


@pytest.mark.parametrize(
    ("reading", "label"),
    [
        (Reading(), "1"),
        (BINARY, None),
        (BINARY, [1]),
        (BINARY, 1.5),
        (BINARY, 10**400),
        (Reading(Task.REGRESSION), "1"),
        (Reading(Task.REGRESSION), True),
        (Reading(Task.REGRESSION), float("nan")),
        (Reading(Task.REGRESSION), 10**400),
        (Reading(Task.REGRESSION), json.loads("1e999")),
    ],
)
def test_a_label_that_says_nothing_is_refused(reading, label):
    with pytest.raises(LabelError):
        truth_of(reading, label)


@pytest.mark.parametrize(
    ("values", "label", "confidence"),
    [
        ([0.2, 0.8], "1", 0.8),
        ([2.0, -1.0, 0.0], "0", 0.8438),
        ([0.3], "0", 0.7),
    ],
)
def test_scores_probabilities_and_one_share_are_read_as_classes(values, label, confidence):
    (found,) = predictions_of(BINARY, {"y": tensor([values])})
    assert found.label == label
    assert found.confidence == pytest.approx(confidence, abs=1e-4)


def test_names_of_classes_indices_and_strings_are_read_as_classes():
    reading = Reading(Task.CLASSIFICATION, "y", ("cat", "dog"))
    (found,) = predictions_of(reading, {"a": tensor([[1]]), "y": tensor([[0.1, 0.9]])})
    assert found.label == "dog"
    index = Tensor("INT64", (2,), np.array([0, 7]))
    assert [each.label for each in predictions_of(reading, {"y": index})] == ["cat", "7"]
    text = Tensor("BYTES", (1, 1), [b"dog"])
    assert predictions_of(reading, {"y": text}) == [Prediction("dog")]


@pytest.mark.parametrize(
    "found",
    [
        Tensor("FP32", (1, 2), np.array([np.nan, 1.0], np.float32)),
        Tensor("FP32", (7, 2), np.array([0.1, 0.9], np.float32)),
        Tensor("FP32", (0,), np.array([], np.float32)),
        Tensor("BYTES", (1, 2), [b"a", b"b"]),
        Tensor("FP32", (1, 1), np.array([5.0], np.float32)),
    ],
)
def test_an_answer_of_another_form_predicts_nothing(found):
    assert predictions_of(BINARY, {"y": found}) == []
