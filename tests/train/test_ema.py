import pytest
import torch

from tests.train.toy import ToyTask
from tubelet.train.ema import WeightAverage


def moved(task: ToyTask, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_equals_the_formula() -> None:
    task = ToyTask()
    average = WeightAverage(task, decay=0.7)
    history = [task.head.weight.detach().double()]
    for step in range(6):
        moved(task, step)
        average.update(task)
        history.append(task.head.weight.detach().double())
    # a_n = d^n w_0 + sum over k = 1..n of (1 - d) d^(n - k) w_k
    n = len(history) - 1
    expected = 0.7**n * history[0] + sum(0.3 * 0.7 ** (n - k) * history[k] for k in range(1, n + 1))
    torch.testing.assert_close(average.weights["head.weight"].double(), expected, atol=1e-6, rtol=0)


def test_swaps_in_and_back_even_after_an_error() -> None:
    task = ToyTask()
    average = WeightAverage(task, decay=0.5)
    start = task.head.weight.detach().clone()
    moved(task, 0)
    own = task.head.weight.detach().clone()

    def fail() -> None:
        with average.swapped(task):
            assert torch.equal(task.head.weight, start)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(task.head.weight, own)
    assert torch.equal(average.weights["head.weight"], start)


def test_average_of_low_precision_weights_is_fp32() -> None:
    task = ToyTask().bfloat16()
    average = WeightAverage(task, decay=0.999)
    moved(task, 0)
    average.update(task)
    assert {weight.dtype for weight in average.weights.values()} == {torch.float32}
    assert not torch.equal(average.weights["head.weight"], ToyTask().bfloat16().head.weight.float())


def test_state_is_a_copy_and_comes_back() -> None:
    task = ToyTask()
    task.embed.requires_grad_(False)
    average = WeightAverage(task, decay=0.5)
    state = average.state_dict()
    assert state.keys() == {name for name, _ in task.named_parameters() if not name.startswith("embed")}
    moved(task, 0)
    average.update(task)
    assert not torch.equal(average.weights["token"], state["token"])
    average.load_state_dict(state)
    assert torch.equal(average.weights["token"], state["token"])
