"""Computes the same products with operands at several places in memory: `python -m tests.support.programs.alignment THREADS`.

Prints the name of each kind of product whose bits depend on the place. tests/vidmae/ranks/test_numerics.py runs it with and without
the setting of vidmae/start/numerics.py.
"""

import sys

import vidmae  # noqa: F401  (sets what torch must find)

import torch  # isort: skip
import torch.nn.functional as F  # isort: skip

SIZES = ((65, 129, 257), (1, 64, 768), (204, 320, 96), (16, 1176, 512), (7, 33, 65), (33, 64, 33))
FLOATS_APART = 16  # 64 bytes, one cache line and one AVX-512 register
SHIFTS = (0, 1, 4, 8, 13)


def placed(values: torch.Tensor, shift: int) -> torch.Tensor:
    """A copy that begins `shift` numbers after a multiple of 64 bytes."""
    room = torch.empty(values.numel() + 2 * FLOATS_APART, dtype=values.dtype)
    first = (shift - room.data_ptr() // values.element_size()) % FLOATS_APART
    return room[first:first + values.numel()].view(values.shape).copy_(values)


def attention(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of 2 heads of width 16, over rows of a and b."""
    q, k = (x.flatten()[:32 * (x.numel() // 32)].view(1, 2, -1, 16) for x in (a, b))
    return F.scaled_dot_product_attention(q, k, k)


KINDS = {
    "mm": torch.mm,
    "bmm": lambda a, b: torch.bmm(a.expand(2, -1, -1), b.expand(2, -1, -1)),
    "linear": lambda a, b: F.linear(a, b.T.contiguous()),
    "transposed": lambda a, b: torch.mm(b.T, a.T),
    "bf16": lambda a, b: torch.mm(a.bfloat16(), b.bfloat16()),
    "attention": attention,
    "norm": lambda a, b: F.layer_norm(a, a.shape[1:]),
}


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    for name, compute in KINDS.items():
        for m, k, n in SIZES:
            a, b = torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
            expected = compute(a, b)
            if not all(torch.equal(compute(placed(a, i), placed(b, j)), expected) for i in SHIFTS for j in SHIFTS):
                print(name)
                break


if __name__ == "__main__":
    main(int(sys.argv[1]))
