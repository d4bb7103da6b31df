"""What this machine multiplies at most: GFLOP/s at the shapes of an encoder's linear layers, in fp32 and bf16.

Run: python benchmarks/ceiling.py [--widths 384,768] [--tokens 4096]

Forward products and input gradients on 4,096 tokens, into memory that is there already. Of each product the median of
some calls, of several such medians the best. Writes benchmarks/results/ceiling.json.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from trials import RESULTS, write_results

__all__ = ["Product", "measure_ceiling", "measure_products", "median_seconds"]

DTYPES = ("fp32", "bf16")
TOKENS = 4096


@dataclass(frozen=True)
class Product:
    """One matrix product: `forward` or `input gradient` of a layer, what it computes, its best median time."""

    layer: str
    direction: str
    gflop: float
    seconds: float


def measure_ceiling(width: int, dtype: str, *, tokens: int = TOKENS, rounds: int = 5, calls: int = 5) -> float:
    """Measure the speed of all products of one encoder block together.

    Args:
        width: Width of the encoder; the feed-forward network is four times as wide.
        dtype: `fp32` or `bf16`.
        tokens: Rows of the input.
        rounds: Medians of which the best counts.
        calls: Calls of which the median is taken.

    Returns:
        GFLOP/s: each product has the share in it that it has in the block.
    """
    return _speed(measure_products(width, dtype, tokens=tokens, rounds=rounds, calls=calls))


def measure_products(width: int, dtype: str, *, tokens: int = TOKENS, rounds: int = 5, calls: int = 5) -> list[Product]:
    """Measure each product of one encoder block; arguments as for `measure_ceiling`."""
    shapes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    products = [product for shape in shapes for product in _build(*shape, dtype, tokens)]
    best = [float("inf")] * len(products)
    for _ in range(rounds):
        for index, (_, _, _, call) in enumerate(products):
            best[index] = min(best[index], median_seconds(call, calls))
    return [
        Product(layer, direction, gflop, seconds)
        for (layer, direction, gflop, _), seconds in zip(products, best, strict=True)
    ]


def _build(inputs: int, outputs: int, dtype: str, tokens: int) -> list[tuple[str, str, float, Callable[[], object]]]:
    import torch

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    x, d_output = torch.randn(tokens, inputs).to(kind), torch.randn(tokens, outputs).to(kind)
    weight = torch.randn(outputs, inputs).to(kind)
    output, d_input = torch.empty_like(d_output), torch.empty_like(x)
    layer, gflop = f"{inputs}->{outputs}", 2 * tokens * inputs * outputs / 1e9
    return [
        (layer, "forward", gflop, lambda: torch.mm(x, weight.t(), out=output)),
        (layer, "input gradient", gflop, lambda: torch.mm(d_output, weight, out=d_input)),
    ]


def median_seconds(call: Callable[[], object], calls: int) -> float:
    """Return the median of some calls, after one that warms up."""
    call()
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _speed(products: list[Product]) -> float:
    return sum(product.gflop for product in products) / sum(product.seconds for product in products)


def main() -> None:
    """Measure every width in every dtype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default="384,768", help="comma-separated")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="all cores when absent")
    parser.add_argument("--output", type=Path, default=RESULTS / "ceiling.json")
    arguments = parser.parse_args()
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    results = {}
    for width in map(int, arguments.widths.split(",")):
        for dtype in DTYPES:
            products = measure_products(width, dtype, tokens=arguments.tokens, rounds=arguments.rounds)
            results[f"{width} {dtype}"] = {
                "gflop_per_second": _speed(products),
                "products": [asdict(product) for product in products],
            }
            print_table(width, dtype, products)
    report = {"tokens": arguments.tokens, "threads": torch.get_num_threads(), "results": results}
    write_results(arguments.output, report)


def print_table(width: int, dtype: str, products: list[Product]) -> None:
    """Print the speed of each layer's products and of all together."""
    for forward, backward in zip(products[::2], products[1::2], strict=True):
        print(
            f"{dtype}  {forward.layer:>10s}  forward {_speed([forward]):4.0f}  input gradient {_speed([backward]):4.0f}"
        )
    print(f"{dtype}  {width}-wide block: {_speed(products):.0f} GFLOP/s", flush=True)


if __name__ == "__main__":
    main()
