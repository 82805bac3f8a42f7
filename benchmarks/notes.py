"""Why a row is slower than PyTorch's, by the row's name; ``benchmarks.kernels`` prints these for rows below 1.0."""

from __future__ import annotations

_CACHE_BOUND = (
    "both read the array at the bandwidth of the shared cache; 10 us of Python stand around a kernel of 98, for 16 MB have gone "
    "through the caches that it was in"
)

NOTES: dict[str, str] = {
    **{f"{name} 4096x1000 over 1": _CACHE_BOUND for name in ("sum", "mean")},
    **{f"{name} 16x64x56x56 over (0,2,3)": "level within the noise" for name in ("sum", "mean")},
    "group_norm (32) 16x256x28x28": "level within the noise forward: both are bound by the shared cache",
    "embedding 10000x128, 20x35 indices": "the kernel takes 5.3 of 12 us, at the bandwidth of the second-level caches; "
    "PyTorch needs 8 for everything",
    "index_select 64x512x64, 100 along 1": "50 us of Python stand around a kernel of 170",
    "scatter_add 1M": "bound by additions at random places, on one thread as in PyTorch",
    "lstm seq 35 batch 20, 128 -> 256": "level within the noise forward: five functions of each unit run between a step's "
    "products, and take 8 % of it",
}

_SMALL = "too short for the limit to matter: 20 to 30 us of Python stand around kernels of about 100"

SHORTFALLS: dict[str, str] = {
    "conv2d 64x1x28x28 -> 6 k5": f"six channels of a vector's eight are real; 25 taps are few for a tile written; {_SMALL}",
    "conv2d 32x6x14x14 -> 16 k5": f"six channels of a vector's eight are real in the input gradient, and half of its "
    f"products meet padding; {_SMALL}",
    "conv2d depthwise 32x128x28x28 k3 p1": "nine multiply-adds for each loaded vector, and planes of 28 columns that fill 7/8 of "
    "two vectors; the weight gradient copies both planes into the first-level cache first",
    "conv_transpose2d 4x256x32x32 -> 128 k3 s2 p1 op1": "the weight gradient's dot tiles load ten vectors for 24 multiply-adds",
    "max_pool2d 16x64x112x112 k3 s2 p1": "recorded, nine taps are compared one after the other, and an index goes with each "
    "maximum; the gradient clears an image and scatters to it number by number",
    "avg_pool2d 16x64x7x7 k3 s3": "8 of 22 us are Python, the rest one thread that adds 37,000 numbers",
    "avg_pool2d 16x64x112x112 k3 s2 p1": "backward, a row of 112 numbers takes 150 cycles of short loops over one or two taps",
    "adaptive_avg_pool2d 16x512x7x7 -> 1": "10 of 30 us are Python; 49 pixels a window fill no whole vectors",
    "batch_norm 16x64x56x56, training": "statistics read x once and the result reads it again, from memory",
    "cross_entropy 4096x1000": "bound by 4 million exponentials, not by memory",
    "gelu 16M": "bound by 27 multiply-adds and a division for a vector, 36 cycles",
    "embedding 10000x128, 20x35 indices": "the kernel takes 5.3 of 12 us, Python the rest",
    **{
        f"{name} along {dim}": "each element has an index of 8 bytes, and is picked and added by itself"
        for name, dim in (("gather 1000x1000", 0), ("gather 1000x1000", 1), ("scatter_add 1000x1000", 0))
    },
    "scatter_add 1M": "a million additions at random places of 4 MB, in their order, on one thread",
    "index_select 64x512x64, 100 along 1": "lines of 256 bytes; 50 of 250 us are Python",
    "index_select 50000x64, 8192 along 0": "backward, 12.8 MB of zeros are written for 2 MB that are added",
    "index_put 50000x64, 8192 rows added": "its gradient is copied, and rows of 256 bytes are picked from it",
    "lstm seq 35 batch 20, 128 -> 256": "forward 8 % of the time goes to the functions of gates, 5 % between short products",
    "lstm seq 128 batch 1, 64 -> 128": "one row: a product of a matrix and a vector reads each weight for one multiply-add",
    "gru seq 35 batch 20, 128 -> 256": "as the LSTM of this size: functions of the gates, and time between short products",
    "rnn seq 35 batch 20, 128 -> 256": "as the LSTM of this size: functions of the gates, and time between short products",
    "attention batch 8, 4 heads, 512x64": "exponentials beside the products, which sum over no more than 64",
    "interpolate bilinear 8x64x56x56 x2": "its 26 MB go through the cache, not past it; not looked into further",
    "linear 64x1024 -> 1024": "backward, 4 MB of weights' gradients are written, each the sum of no more than 64 products",
    "grid_sample 8x32x64x64": "gathers four pixels for each output, which no counted byte stands for",
    "unfold 16x32x28x28 k3 p1": "rows of 28 numbers, each written to nine places",
    "fold 16x288x784 -> 28x28 k3 p1": "rows of 28 numbers, each read from nine places",
    "local_response_norm 16x64x28x28 size 5": "bound by a power for each number",
    "max_unpool2d 16x64x56x56 k2": "zeros are written first, then values to scattered places",
    "dropout 4M": "bound by ten rounds of Philox for each four numbers",
    "var 16x64x56x56 over (0,2,3)": "reads the numbers twice and adds the squares in float64",
    "var 4096x1000 over 1": "reads the numbers twice and adds the squares in float64",
}
