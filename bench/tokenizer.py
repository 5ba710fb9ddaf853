"""Windows a second in training and encoding, at full size, beside the head as published.

The tokenizer's head is factorised (:class:`laps.tokenizer.model.DisplacementHead`). The published one (AMPLIFY's, which
the paper takes over) feeds the token and the point's embedding side by side through an MLP with two hidden layers, for
every point and step. Both learn here from the same windows, in the same arithmetic, every point of every window, and
once more as the product trains: a quarter of the points drawn in each step. Encoding is timed in both precisions.

    python -m bench.tokenizer --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from laps.tokenizer import MotionTokenizer, TokenizerConfig
from laps.tokenizer.config import Precision
from laps.tokenizer.model import DisplacementHead

BATCH = 16


class PublishedHead(nn.Module):
    """Two hidden layers over every pair of a token and a point; the same sizes as the factorised head."""

    def __init__(self, width: int, points: int, hidden: int, class_count: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(points, width))
        self.layers = nn.Sequential(
            nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.Linear(hidden, class_count)
        )

    def forward(self, tokens: Tensor, points: Tensor | None = None) -> Tensor:
        embedding = self.embedding if points is None else self.embedding[points]
        shape = (*tokens.shape[:-1], len(embedding), tokens.shape[-1])
        pairs = [tokens.unsqueeze(-2).expand(shape), embedding.expand(shape)]
        return cast(Tensor, self.layers(torch.cat(pairs, dim=-1)))


def windows(count: int, config: TokenizerConfig) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(0, 2, (count, config.steps, config.points, 2)).astype(np.float32))


def windows_per_s(step: Callable[[], int], seconds: float) -> float:
    """Of a step that returns how many windows it took; the first is not timed."""
    step()
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        done += step()
    return done / passed


def training(head: type[nn.Module], precision: Precision, point_share: float, seconds: float, device: str) -> float:
    config = TokenizerConfig.full("bench/v1", precision=precision)
    config = replace(config, learning=replace(config.learning, point_share=point_share))
    tokenizer = MotionTokenizer(config)
    if head is not DisplacementHead:
        tokenizer.head = head(config.width, config.points, config.head_width, config.class_count)  # type: ignore[assignment]
    tokenizer.to(device).train()
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=1e-4, fused=True)
    data = windows(BATCH, config).to(device)
    points = None if point_share == 1 else torch.arange(0, config.points, round(1 / point_share), device=device)

    def step() -> int:
        loss, _, _ = tokenizer.loss(data, None, points)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        float(loss.detach())  # waits for a GPU
        return len(data)

    return windows_per_s(step, seconds)


def encoding(precision: Precision, seconds: float, device: str) -> float:
    config = TokenizerConfig.full("bench/v1", precision=precision)
    tokenizer = MotionTokenizer(config).to(device)
    tokenizer.train().latents(windows(BATCH, config).to(device))
    tokenizer.eval().requires_grad_(False)
    tokenizer.adopt_id("t" + "0" * 12)
    data = windows(512, config).numpy()

    def step() -> int:
        tokenizer.encode(data)
        return len(data)

    return windows_per_s(step, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.device}, {options.threads} threads; {BATCH} windows a step")
    for precision in ("float32", "bfloat16"):
        published = training(PublishedHead, precision, 1.0, options.seconds, options.device)
        factorised = training(DisplacementHead, precision, 1.0, options.seconds, options.device)
        product = training(DisplacementHead, precision, 0.25, options.seconds, options.device)
        encoded = encoding(precision, options.seconds, options.device)
        print(
            f"{precision:9} training: published head {published:6.1f} windows/s, factorised {factorised:6.1f} "
            f"({factorised / published:.1f}x), with a quarter of the points {product:6.1f} "
            f"({product / published:.1f}x); encoding {encoded:7.0f} windows/s"
        )


if __name__ == "__main__":
    main()
