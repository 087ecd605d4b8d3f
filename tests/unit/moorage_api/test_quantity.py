"""The value of a quantity."""

from decimal import Decimal

import pytest

from moorage_api.quantity import quantity_value


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ("0", 0),
        ("2", 2),
        ("0.5", Decimal("0.5")),
        ("500m", Decimal("0.5")),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 1610612736),
        ("40Gi", 40 * 2**30),
        ("40G", 40 * 10**9),
        ("2Ti", 2 * 2**40),
        ("1E", 10**18),
        ("1Ei", 2**60),
    ],
)
def test_a_unit_multiplies(quantity, value):
    assert quantity_value(quantity) == value


@pytest.mark.parametrize("quantity", ["", "Gi", "4GB", "-1", "1.", ".5", "1e3", "4 Gi", "٣"])
def test_what_is_no_quantity_is_an_error(quantity):
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity_value(quantity)
