"""Each row of the truth table of design section 4, and every combination of inputs against it."""

import itertools

import pytest

from avex._core.errors import ConfigError
from avex.models.utils.plan import LoadPlan, plan_load


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            dict(return_features_only=True, num_classes=None, has_weights=True),
            LoadPlan(True, None, "none", True, False),
        ),
        (
            dict(return_features_only=True, num_classes=7, has_weights=False),
            LoadPlan(True, None, "none", False, False),
        ),
        (
            dict(return_features_only=False, num_classes=7, has_weights=True),
            LoadPlan(False, 7, "new", True, False),
        ),
        (
            dict(return_features_only=False, num_classes=7, has_weights=False),
            LoadPlan(False, 7, "new", False, False),
        ),
        (
            dict(
                return_features_only=False, num_classes=None, has_weights=True, has_head=True, head_classes=5
            ),
            LoadPlan(False, 5, "checkpoint", True, True),
        ),
        (
            dict(return_features_only=False, num_classes=None, has_weights=True, has_head=False),
            LoadPlan(True, None, "none", True, False),
        ),
        (
            dict(return_features_only=False, num_classes=None, has_weights=False),
            LoadPlan(True, None, "none", False, False),
        ),
    ],
)
def test_rows(arguments, expected):
    assert plan_load(**arguments) == expected


def test_every_combination_is_decided_once():
    for features, classes, weights, head in itertools.product(
        [True, False], [None, 3], [True, False], [True, False]
    ):
        plan = plan_load(
            return_features_only=features,
            num_classes=classes,
            has_weights=weights,
            has_head=head,
            head_classes=9 if head else None,
        )
        assert plan.features_only == (plan.head == "none") == (plan.num_classes is None)
        assert plan.weights == weights
        assert plan.attach_labels == (plan.head == "checkpoint")
        if features:
            assert plan.head == "none"


@pytest.mark.parametrize(
    ("head", "card", "labels", "expected"), [(5, 6, 7, 5), (None, 6, 7, 6), (None, None, 7, 7)]
)
def test_size_of_the_head_comes_from_the_file_then_the_card_then_the_labels(head, card, labels, expected):
    plan = plan_load(
        return_features_only=False,
        num_classes=None,
        has_weights=True,
        has_head=True,
        head_classes=head,
        card_classes=card,
        label_classes=labels,
    )
    assert plan.num_classes == expected


def test_a_head_of_unknown_size_is_an_error():
    with pytest.raises(ConfigError, match="num_classes"):
        plan_load(return_features_only=False, num_classes=None, has_weights=True, has_head=True)


@pytest.mark.parametrize("classes", [0, -1, 2.5, True])
def test_impossible_sizes(classes):
    with pytest.raises(ConfigError, match="at least 1"):
        plan_load(return_features_only=False, num_classes=classes, has_weights=False)
