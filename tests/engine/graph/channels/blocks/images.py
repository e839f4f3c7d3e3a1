"""Blocks of convolutional networks: [N, C, H, W]. N is free, H sometimes."""

import numpy as np

from tests.engine.graph.channels.blocks.draft import EPSILON, IMAGE, Draft, enter

ACTIVATIONS = (
    "Relu", "LeakyRelu", "HardSwish", "Sigmoid", "HardSigmoid", "Tanh", "Elu", "Softplus", "Abs", "Gelu", "Identity",
)  # fmt: skip
MOST = 16
"""Channels above which no block adds some."""


def channels(draft: Draft) -> int:
    size = draft.shape[1]
    assert isinstance(size, int)
    return size


def divisors(*numbers: int) -> list[int]:
    return [each for each in range(1, min(numbers) + 1) if all(number % each == 0 for number in numbers)]


def convolve(draft: Draft, x: str, before: int, after: int, kernel: int = 1, group: int = 1) -> str:
    weight = draft.floats(after, before // group, kernel, kernel)
    bias = [draft.floats(after)] if draft.flag() else []
    return draft.add("Conv", x, weight, *bias, group=group, pads=[kernel // 2] * 4)


def activate(draft: Draft, x: str) -> str:
    return draft.add(draft.one_of(ACTIVATIONS), x)


@enter(IMAGE)
def convolution(draft: Draft) -> None:
    before, after = channels(draft), draft.integer(2, 10)
    group = draft.one_of(divisors(before, after))
    made = convolve(draft, draft.x, before, after, draft.one_of([1, 3]), group)
    draft.go_on(activate(draft, made), draft.shape[0], after, *draft.shape[2:])


@enter(IMAGE)
def stride(draft: Draft) -> None:
    n, before, h, w = draft.shape
    if h != 8:
        return
    weight = draft.floats(6, int(before), 3, 3)
    draft.go_on(
        draft.add("Conv", draft.x, weight, strides=[2, 2], pads=[1] * 4, dilations=[1, 1]), n, 6, 4, int(w) // 2
    )


@enter(IMAGE)
def depthwise(draft: Draft) -> None:
    count = channels(draft)
    times = draft.integer(1, 2) if count * 2 <= MOST else 1
    made = convolve(draft, draft.x, count, count * times, 3, count)
    draft.go_on(made, draft.shape[0], count * times, *draft.shape[2:])


@enter(IMAGE)
def transposed(draft: Draft) -> None:
    before, after = channels(draft), draft.integer(2, 8)
    group = draft.one_of(divisors(before, after))
    bias = [draft.floats(after)] if draft.flag() else []
    weight = draft.floats(before, after // group, 3, 3)
    made = draft.add("ConvTranspose", draft.x, weight, *bias, group=group, pads=[1] * 4)
    draft.go_on(made, draft.shape[0], after, *draft.shape[2:])


@enter(IMAGE)
def batch_norm(draft: Draft) -> None:
    count = channels(draft)
    vectors = [draft.floats(count, around=around) for around in (1.0, 0.0, 0.0)]
    variance = draft.store(draft.rng.uniform(0.5, 2, count).astype(np.float32))
    draft.go_on(draft.add("BatchNormalization", draft.x, *vectors, variance))


@enter(IMAGE)
def instance_norm(draft: Draft) -> None:
    count = channels(draft)
    affine = draft.floats(count, around=1.0), draft.floats(count)
    draft.go_on(draft.add("InstanceNormalization", draft.x, *affine, epsilon=EPSILON))


@enter(IMAGE)
def group_norm(draft: Draft) -> None:
    """By the operator, or as older exporters write it."""
    count = channels(draft)
    groups = draft.one_of(divisors(count))
    if draft.flag():
        scale, bias = draft.floats(count, around=1.0), draft.floats(count)
        draft.go_on(draft.add("GroupNormalization", draft.x, scale, bias, num_groups=groups, epsilon=EPSILON))
        return
    flat = draft.add("Reshape", draft.x, draft.integers(0, groups, -1))
    ones, zeros = draft.store(np.ones(groups, np.float32)), draft.store(np.zeros(groups, np.float32))
    normal = draft.add("InstanceNormalization", flat, ones, zeros, epsilon=EPSILON)
    back = draft.add("Reshape", normal, draft.add("Shape", draft.x))
    scaled = draft.add("Mul", back, draft.floats(count, 1, 1, around=1.0))
    draft.go_on(draft.add("Add", scaled, draft.floats(count, 1, 1)))


@enter(IMAGE)
def residual(draft: Draft) -> None:
    count, hidden = channels(draft), draft.integer(2, 8)
    inner = activate(draft, convolve(draft, draft.x, count, hidden, 3))
    draft.go_on(draft.add(draft.one_of(["Add", "Sub", "Max", "Mean"]), draft.x, convolve(draft, inner, hidden, count)))


@enter(IMAGE)
def sum_with_earlier(draft: Draft) -> None:
    for name in draft.earlier(draft.shape)[-1:]:
        draft.go_on(draft.add("Add", name, draft.x))


@enter(IMAGE)
def concat_with_earlier(draft: Draft) -> None:
    sizes = draft.shape
    fitting = [(name, shape) for name, shape in draft.past if shape[:1] + shape[2:] == sizes[:1] + sizes[2:]]
    for name, shape in fitting[-1:]:
        parts = draft.one_of([(name, draft.x), (draft.x, name), (draft.x, name, draft.x)])
        total = sum(channels(draft) if part == draft.x else int(shape[1]) for part in parts)
        if total <= MOST:
            draft.go_on(draft.add("Concat", *parts, axis=draft.one_of([1, -3])), sizes[0], total, *sizes[2:])


@enter(IMAGE)
def gate(draft: Draft) -> None:
    """Squeeze and excitation, by convolutions or matrices."""
    count, hidden = channels(draft), draft.integer(2, 4)
    squeezed = draft.one_of(["GlobalAveragePool", "ReduceMean", "GlobalMaxPool"])
    axes = [draft.integers(2, 3)] if squeezed == "ReduceMean" else []
    mean = draft.add(squeezed, draft.x, *axes)
    if draft.flag():
        inner = convolve(draft, activate(draft, convolve(draft, mean, count, hidden)), hidden, count)
        weights = draft.add(draft.one_of(["Sigmoid", "HardSigmoid", "Tanh"]), inner)
    else:
        flat = draft.add("Flatten", mean)
        inner = draft.add("Gemm", flat, draft.floats(hidden, count), draft.floats(hidden), transB=1)
        outer = draft.add("Sigmoid", draft.add("MatMul", draft.add("Relu", inner), draft.floats(hidden, count)))
        weights = draft.add("Unsqueeze", outer, draft.integers(2, 3))
    draft.go_on(draft.add("Mul", *draft.one_of([(draft.x, weights), (weights, draft.x)])))


@enter(IMAGE)
def look_over_channels(draft: Draft) -> None:
    """One number for each position: a mean, a sum or a norm over channels."""
    reduction = draft.one_of(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceL1"])
    over = draft.add(reduction, draft.x, draft.integers(draft.one_of([1, -3])), keepdims=1)
    match draft.one_of(["scale", "add", "divide"]):
        case "scale":
            draft.go_on(draft.add("Mul", draft.x, draft.add("Sigmoid", over)))
        case "add":
            draft.go_on(draft.add("Add", draft.x, over))
        case _:
            safe = draft.add("Add", draft.add("Abs", over), draft.number(0.5))
            draft.go_on(draft.add("Div", draft.x, safe))


@enter(IMAGE)
def split(draft: Draft) -> None:
    """Parts of channels go their own ways, and mostly come together again."""
    count = channels(draft)
    if count < 3:
        return
    first = draft.integer(1, count - 1)
    if draft.flag():
        parts = draft.add_several("Split", draft.x, draft.integers(first, count - first), outputs=2, axis=1)
        sizes = [first, count - first]
    else:
        parts = draft.add_several("Split", draft.x, outputs=2, axis=1, num_outputs=2)
        sizes = [-(-count // 2), count // 2]
    parts[0] = activate(draft, convolve(draft, parts[0], sizes[0], sizes[0]))
    match draft.one_of(["join", "first", "product"]):
        case "product" if sizes[0] == sizes[1]:
            draft.go_on(
                draft.add("Mul", parts[0], draft.add("Sigmoid", parts[1])), draft.shape[0], sizes[0], *draft.shape[2:]
            )
        case "first" if sizes[0] > 1:
            draft.go_on(parts[0], draft.shape[0], sizes[0], *draft.shape[2:])
        case _:
            draft.go_on(draft.add("Concat", *reversed(parts), axis=1))


@enter(IMAGE)
def slice_channels(draft: Draft) -> None:
    count = channels(draft)
    start, end = draft.integer(-count - 1, count), draft.one_of([draft.integer(-count, count), 2**62, -(2**62)])
    step = draft.one_of([1, 1, 2, -1, -2])
    left = len(range(count)[slice(start, end, step)])
    if left < 2 or (step < 0 and start < -count):
        return
    if draft.flag():
        numbers = [draft.integers(*each) for each in ((start,), (end,), (1,), (step,))]
        draft.go_on(draft.add("Slice", draft.x, *numbers), draft.shape[0], left, *draft.shape[2:])
    else:
        numbers = [draft.integers(*each) for each in ((0, start), (2**62, end), (3, 1), (1, step))]
        draft.go_on(draft.add("Slice", draft.x, *numbers), draft.shape[0], left, *draft.shape[2:])


@enter(IMAGE)
def gather_channels(draft: Draft) -> None:
    count = channels(draft)
    length = draft.integer(2, 8)
    indices = [draft.integer(-count, count - 1) for _ in range(length)]
    made = draft.add("Gather", draft.x, draft.integers(*indices), axis=1)
    draft.go_on(made, draft.shape[0], length, *draft.shape[2:])


@enter(IMAGE)
def gather_one(draft: Draft) -> None:
    """One channel of all, to scale the others."""
    index = draft.store(np.array(draft.integer(0, channels(draft) - 1), np.int64))
    one = draft.add("Unsqueeze", draft.add("Gather", draft.x, index, axis=1), draft.integers(1))
    draft.go_on(draft.add("Mul", draft.x, draft.add("Tanh", one)))


@enter(IMAGE)
def pad_channels(draft: Draft) -> None:
    before, after, count = draft.integer(0, 3), draft.integer(0, 3), channels(draft)
    value = [draft.number(1.5)] if draft.flag() else []
    pads = (0, before, 0, 0, 0, after, 0, 0)
    inputs, axes = (pads, []) if draft.flag() else ((before, after), [draft.integers(1)])
    if axes and not value:
        value = [""]
    made = draft.add("Pad", draft.x, draft.integers(*inputs), *value, *axes)
    draft.go_on(made, draft.shape[0], count + before + after, *draft.shape[2:])


@enter(IMAGE)
def shuffle(draft: Draft) -> None:
    n, count, h, w = draft.shape
    assert isinstance(count, int)
    groups = draft.one_of(divisors(count))
    apart = draft.add("Reshape", draft.x, draft.target(n, groups, count // groups, h, w))
    turned = draft.add("Transpose", apart, perm=[0, 2, 1, 3, 4])
    draft.go_on(draft.add("Reshape", turned, draft.target(n, count, h, w)))


@enter(IMAGE)
def pixel_shuffle(draft: Draft) -> None:
    """Up by DepthToSpace or written out, and down again."""
    n, count, h, w = draft.shape
    assert isinstance(count, int)
    if count % 4 or not isinstance(h, int) or not isinstance(w, int):
        return
    mode = draft.one_of(["DCR", "CRD"])
    if draft.flag():
        up = draft.add("DepthToSpace", draft.x, blocksize=2, mode=mode)
    else:
        apart = draft.add("Reshape", draft.x, draft.target(n, count // 4, 2, 2, h, w))
        turned = draft.add("Transpose", apart, perm=[0, 1, 4, 2, 5, 3])
        up = draft.add("Reshape", turned, draft.target(n, count // 4, h * 2, w * 2))
    if draft.flag():
        draft.go_on(draft.add("SpaceToDepth", up, blocksize=2))
    else:
        draft.go_on(draft.add("AveragePool", up, kernel_shape=[2, 2], strides=[2, 2]), n, count // 4, h, w)


@enter(IMAGE)
def pool(draft: Draft) -> None:
    kind = draft.one_of(["MaxPool", "AveragePool", "LpPool"])
    draft.go_on(draft.add(kind, draft.x, kernel_shape=[3, 3], pads=[1] * 4))


@enter(IMAGE)
def pool_and_back(draft: Draft) -> None:
    """Down, a convolution, and up by the pool's own indices."""
    count = channels(draft)
    if not isinstance(draft.shape[2], int):
        return
    pooled, indices = draft.add_several("MaxPool", draft.x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    inner = activate(draft, convolve(draft, pooled, count, count))
    draft.go_on(draft.add("MaxUnpool", inner, indices, kernel_shape=[2, 2], strides=[2, 2]))


@enter(IMAGE)
def resize(draft: Draft) -> None:
    """Up by scales, down by the sizes from before."""
    scales = draft.store(np.array([1, 1, 2, 2], np.float32))
    up = draft.add("Resize", draft.x, "", scales, mode="nearest")
    draft.go_on(draft.add("Resize", up, "", "", draft.add("Shape", draft.x), mode=draft.one_of(["nearest", "linear"])))


@enter(IMAGE)
def arithmetic(draft: Draft) -> None:
    """A constant of some shape that broadcasts, on either side."""
    count = channels(draft)
    shape = draft.one_of([(count, 1, 1), (1, count, 1, 1), (1, 1, 1), (), (1,)])
    other = draft.floats(*shape, around=draft.one_of([0.0, 1.5]))
    op = draft.one_of(["Add", "Mul", "Sub", "Max", "PRelu"])
    pair = (draft.x, other) if op == "PRelu" or draft.flag() else (other, draft.x)
    draft.go_on(draft.add(op, *pair))


@enter(IMAGE)
def clip(draft: Draft) -> None:
    low, high = draft.one_of([(0.0, 6.0), (-1.0, 1.0), (0.25, 1.0)])
    draft.go_on(draft.add("Clip", draft.x, draft.number(low), draft.number(high)))


@enter(IMAGE)
def choose(draft: Draft) -> None:
    condition = draft.add("Greater", draft.x, draft.number(0.1))
    other = draft.one_of([draft.number(0.3), draft.number(0.0), draft.add("Tanh", draft.x)])
    draft.go_on(draft.add("Where", condition, draft.x, other))


@enter(IMAGE)
def channels_last(draft: Draft) -> None:
    """A matrix, and perhaps a normalization over channels, where they lie last."""
    count, after = channels(draft), draft.integer(2, 8)
    x = draft.add("Transpose", draft.x, perm=[0, 2, 3, 1])
    if draft.flag():
        x = draft.add("LayerNormalization", x, draft.floats(count, around=1.0), draft.floats(count), epsilon=EPSILON)
    x = draft.add("Add", draft.add("MatMul", x, draft.floats(count, after)), draft.floats(after))
    draft.go_on(draft.add("Transpose", activate(draft, x), perm=[0, 3, 1, 2]), draft.shape[0], after, *draft.shape[2:])


@enter(IMAGE)
def blur(draft: Draft) -> None:
    """One kernel for all channels, which are taken for samples meanwhile."""
    n, count, h, w = draft.shape
    if not isinstance(h, int):
        return
    apart = draft.add("Reshape", draft.x, draft.integers(-1, 1, h, int(w)))
    blurred = convolve(draft, apart, 1, 1, 3)
    draft.go_on(draft.add("Reshape", blurred, draft.target(n, int(count), h, w)))


@enter(IMAGE)
def response_norm(draft: Draft) -> None:
    draft.go_on(draft.add("LRN", draft.x, size=3))


@enter(IMAGE)
def softmax(draft: Draft) -> None:
    draft.go_on(draft.add("Softmax", draft.x, axis=draft.one_of([1, 3])))


@enter(IMAGE)
def normalize(draft: Draft) -> None:
    """By a norm over channels, the operator's or by ReduceL2 and Expand."""
    if draft.flag():
        draft.go_on(draft.add("LpNormalization", draft.x, axis=1, p=2))
        return
    norm = draft.add("Clip", draft.add("ReduceL2", draft.x, draft.integers(1)), draft.number(EPSILON))
    draft.go_on(draft.add("Div", draft.x, draft.add("Expand", norm, draft.add("Shape", draft.x))))


@enter(IMAGE)
def tile(draft: Draft) -> None:
    count = channels(draft)
    if count * 2 <= MOST:
        repeated = draft.add("Tile", draft.x, draft.integers(1, 2, 1, 1))
        draft.go_on(repeated, draft.shape[0], count * 2, *draft.shape[2:])


@enter(IMAGE)
def join_samples(draft: Draft) -> None:
    """Channels and positions in one axis, and apart again."""
    n, count, h, w = draft.shape
    rows = draft.add("Reshape", draft.x, draft.integers(0, 0, -1))
    turned = draft.add("Transpose", rows, perm=[0, 2, 1])
    mixed = draft.add("MatMul", turned, draft.floats(int(count), int(count)))
    back = draft.add("Transpose", mixed, perm=[0, 2, 1])
    draft.go_on(draft.add("Reshape", back, draft.target(n, int(count), h, w)))
