import pytest
import torch

from umr.errors import RecipeError
from umr.losses.temperature import HIGHEST, LOWEST, Temperature


@pytest.mark.parametrize("value", [0.0001, 0.05, 1.0, 3.0])
def test_a_fixed_one_is_what_was_asked_for(value: float):
    temperature = Temperature(value, learned=False)
    assert temperature().item() == pytest.approx(value, rel=1e-6)
    assert not temperature.log_value.requires_grad


@pytest.mark.parametrize("value", [LOWEST / 2, HIGHEST * 2])
def test_a_learned_one_starts_within_its_bounds(value: float):
    with pytest.raises(RecipeError, match=r"loss\.temperature=.* between 0\.005 and 1"):
        Temperature(value, learned=True)


def test_gradient_is_that_of_the_logarithm():
    temperature = Temperature(0.2, learned=True)
    (3 * temperature()).backward()
    assert temperature.log_value.grad.item() == pytest.approx(3 * 0.2, rel=1e-6)


@pytest.mark.parametrize(("start", "bound", "direction"), [(0.006, LOWEST, 1), (0.9, HIGHEST, -1)])
def test_stays_within_bounds_and_comes_back_from_them(start: float, bound: float, direction: int):
    temperature = Temperature(start, learned=True)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=1.0)

    def step(towards: int) -> float:
        optimizer.zero_grad()
        (towards * temperature().log()).backward()
        optimizer.step()
        return temperature().item()

    assert [step(direction) for _ in range(4)] == pytest.approx([bound] * 4, rel=1e-5)
    assert direction * (step(-direction) - bound) > 0.1 * bound


def test_precision_is_single_at_least():
    temperature = Temperature(0.05, learned=False)
    assert temperature.bfloat16()().dtype == torch.float32
    assert Temperature(0.05, learned=True).double()().dtype == torch.float64
