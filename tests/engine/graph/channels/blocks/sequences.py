"""Blocks of transformers: [N, L, D]. N and sometimes L are free."""

import numpy as np

from tests.engine.graph.channels.blocks.draft import EPSILON, SEQUENCE, Draft, enter


def width(draft: Draft) -> int:
    size = draft.shape[2]
    assert isinstance(size, int)
    return size


def linear(draft: Draft, x: str, before: int, after: int, weight: str | None = None) -> str:
    product = draft.add("MatMul", x, weight or draft.floats(before, after))
    return draft.add("Add", draft.floats(after), product) if draft.flag() else product


def normalized(draft: Draft, x: str) -> str:
    """By an operator, written out, or not at all."""
    size = width(draft)
    match draft.one_of(["layer", "rms", "rms written out", "none"]):
        case "layer":
            return draft.add(
                "LayerNormalization", x, draft.floats(size, around=1.0), draft.floats(size), epsilon=EPSILON
            )
        case "rms":
            return draft.add("RMSNormalization", x, draft.floats(size, around=1.0), epsilon=EPSILON)
        case "rms written out":
            return written_out(draft, x, size)
        case _:
            return x


def written_out(draft: Draft, x: str, size: int) -> str:
    squares = draft.add("Pow", x, draft.number(2.0)) if draft.flag() else draft.add("Mul", x, x)
    mean = draft.add("ReduceMean", squares, draft.integers(-1))
    root = draft.add("Sqrt", draft.add("Add", mean, draft.number(EPSILON)))
    unit = draft.add("Div", x, root) if draft.flag() else draft.add("Mul", x, draft.add("Reciprocal", root))
    return draft.add("Mul", draft.floats(size, around=1.0), unit)


@enter(SEQUENCE)
def feed_forward(draft: Draft) -> None:
    size, hidden = width(draft), draft.integer(2, 8)
    inner = draft.add(
        draft.one_of(["Gelu", "Relu", "Sigmoid"]), linear(draft, normalized(draft, draft.x), size, hidden)
    )
    draft.go_on(draft.add("Add", draft.x, linear(draft, inner, hidden, size)))


@enter(SEQUENCE)
def gated(draft: Draft) -> None:
    """SwiGLU and its like: two matrices, or one whose result is split."""
    size, hidden = width(draft), draft.integer(2, 6)
    x = normalized(draft, draft.x)
    if draft.flag():
        up, gate = linear(draft, x, size, hidden), linear(draft, x, size, hidden)
    else:
        up, gate = draft.add_several("Split", linear(draft, x, size, hidden * 2), outputs=2, axis=-1, num_outputs=2)
    inner = draft.add("Mul", draft.add("Mul", gate, draft.add("Sigmoid", gate)), up)
    draft.go_on(draft.add("Add", linear(draft, inner, hidden, size), draft.x))


@enter(SEQUENCE)
def projection(draft: Draft) -> None:
    """Another width, by MatMul, Gemm on rows, or a convolution over neighbours."""
    before, after = width(draft), draft.integer(2, 10)
    n, length, _ = draft.shape
    match draft.one_of(["matmul", "gemm", "convolution"]):
        case "matmul":
            made = linear(draft, draft.x, before, after)
        case "gemm":
            rows = draft.add("Reshape", draft.x, draft.integers(-1, before))
            product = draft.add("Gemm", rows, draft.floats(after, before), draft.floats(after), transB=1, alpha=0.5)
            made = draft.add("Reshape", product, draft.target(n, length, after))
        case _:
            turned = draft.add("Transpose", draft.x, perm=[0, 2, 1])
            over = draft.add("Conv", turned, draft.floats(after, before, 3), draft.floats(after), pads=[1, 1])
            made = draft.add("Transpose", over, perm=[0, 2, 1])
    draft.go_on(made, n, length, after)


@enter(SEQUENCE)
def normalization(draft: Draft) -> None:
    draft.go_on(normalized(draft, draft.x))


@enter(SEQUENCE)
def positions(draft: Draft) -> None:
    length = draft.shape[1]
    if isinstance(length, int):
        table = draft.floats(1, length + 2, width(draft))
        if draft.flag():
            ends = draft.add("Gather", draft.add("Shape", draft.x), draft.integers(1))
            rows = draft.add("Slice", table, draft.integers(0), ends, draft.integers(1))
        else:
            rows = draft.add("Gather", table, draft.integers(*range(1, length + 1)), axis=1)
        draft.go_on(draft.add("Add", draft.x, rows))


@enter(SEQUENCE)
def class_token(draft: Draft) -> None:
    """One more at the front, which goes again."""
    size = width(draft)
    token = draft.floats(1, 1, size)
    shape = draft.add("Concat", draft.size("N"), draft.integers(1), draft.size(size), axis=0)
    longer = draft.add("Concat", draft.add("Expand", token, shape), draft.x, axis=1)
    mixed = linear(draft, longer, size, size)
    draft.go_on(draft.add("Slice", mixed, draft.integers(1), draft.integers(2**62), draft.integers(1)))


@enter(SEQUENCE)
def mix_positions(draft: Draft) -> None:
    """A matrix over positions, as MLP-Mixer has; perhaps as a convolution."""
    length = draft.shape[1]
    if not isinstance(length, int):
        return
    if draft.flag():
        mixed = draft.add("Conv", draft.x, draft.floats(length, length, 1), draft.floats(length))
    else:
        turned = draft.add("Transpose", draft.x, perm=[0, 2, 1])
        mixed = draft.add("Transpose", linear(draft, turned, length, length), perm=[0, 2, 1])
    draft.go_on(draft.add("Add", draft.x, mixed))


@enter(SEQUENCE)
def attention(draft: Draft) -> None:
    """Softmax(Q K^T / sqrt(D)) V, with as many keys as queries or fewer."""
    heads, size = draft.integer(1, 3), draft.one_of([2, 4])
    shared = draft.one_of([1, 1, 2, 3])
    x = normalized(draft, draft.x)
    q, k, v = fused(draft, x, heads, size) if shared == 1 and draft.flag() else apart(draft, x, heads, size, shared)
    if draft.flag():
        q, k = rotated(draft, q, size), rotated(draft, k, size)
    scores = draft.add("MatMul", scaled(draft, q, size), draft.add("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = draft.add("MatMul", draft.add("Softmax", scores, axis=-1), v)
    flat = draft.add("Transpose", mixed, perm=[0, 2, 1, 3])
    n, length, before = draft.shape
    total = heads * shared * size
    merged = draft.add("Reshape", flat, draft.target(n, length, total))
    draft.go_on(draft.add("Add", draft.x, linear(draft, merged, total, int(before))))


def in_heads(draft: Draft, x: str, heads: int, size: int) -> str:
    """[N, L, heads * size] as [N, heads, L, size]."""
    n, length, _ = draft.shape
    target = draft.integers(0, 0, heads, size) if draft.flag() else draft.target(n, length, heads, size)
    return draft.add("Transpose", draft.add("Reshape", x, target), perm=[0, 2, 1, 3])


def apart(draft: Draft, x: str, heads: int, size: int, shared: int) -> list[str]:
    before = width(draft)
    q = in_heads(draft, linear(draft, x, before, heads * shared * size), heads * shared, size)
    kv = [in_heads(draft, linear(draft, x, before, heads * size), heads, size) for _ in range(2)]
    return [q, *(kv if shared == 1 else [repeated(draft, each, heads, size, shared) for each in kv])]


def repeated(draft: Draft, x: str, heads: int, size: int, shared: int) -> str:
    """Every key head for several query heads."""
    n, length, _ = draft.shape
    wider = draft.add("Unsqueeze", x, draft.integers(2))
    if draft.flag():
        sizes = draft.add("Shape", x)
        parts = [draft.add("Gather", sizes, draft.integers(index)) for index in range(4)]
        shape = draft.add("Concat", *parts[:2], draft.integers(shared), *parts[2:], axis=0)
    else:
        shape = draft.integers(1, 1, shared, 1, 1)
    copies = draft.add("Expand", wider, shape)
    return draft.add("Reshape", copies, draft.target(n, heads * shared, length, size))


def fused(draft: Draft, x: str, heads: int, size: int) -> list[str]:
    """Queries, keys and values of one matrix, cut in several ways."""
    n, length, before = draft.shape
    total = heads * size
    made = linear(draft, x, int(before), 3 * total)
    match draft.one_of(["split", "slices", "reshape", "split heads"]):
        case "split":
            parts = draft.add_several("Split", made, draft.integers(total, total, total), outputs=3, axis=2)
            return [in_heads(draft, part, heads, size) for part in parts]
        case "slices":
            starts = [draft.integers(total * index) for index in range(3)]
            ends = [draft.integers(total * index + total) for index in range(3)]
            cut = [draft.add("Slice", made, *each, draft.integers(-1)) for each in zip(starts, ends, strict=True)]
            return [in_heads(draft, part, heads, size) for part in cut]
        case "reshape":
            five = draft.add("Reshape", made, draft.target(n, length, 3, heads, size))
            turned = draft.add("Transpose", five, perm=[2, 0, 3, 1, 4])
            indices = [draft.store(np.array(index, np.int64)) for index in range(3)]
            return [draft.add("Gather", turned, index, axis=0) for index in indices]
        case _:
            four = draft.add("Reshape", made, draft.target(n, length, heads, 3 * size))
            parts = draft.add_several("Split", four, outputs=3, axis=-1, num_outputs=3)
            return [draft.add("Transpose", part, perm=[0, 2, 1, 3]) for part in parts]


def rotated(draft: Draft, x: str, size: int) -> str:
    """Rotary positions of a constant angle: halves change places."""
    half = draft.integers(size // 2)
    first = draft.add("Slice", x, draft.integers(0), half, draft.integers(3))
    second = draft.add("Slice", x, half, draft.integers(2**62), draft.integers(3))
    turned = draft.add("Concat", draft.add("Neg", second), first, axis=-1)
    angles = np.tile(draft.rng.standard_normal(size // 2), 2).astype(np.float32)
    cosine, sine = draft.store(np.cos(angles)), draft.store(np.sin(angles))
    return draft.add("Add", draft.add("Mul", x, cosine), draft.add("Mul", turned, sine))


def scaled(draft: Draft, q: str, size: int) -> str:
    """By a constant, or by the size as Shape gives it."""
    if draft.flag():
        return draft.add("Mul", q, draft.number(size**-0.5))
    last = draft.add("Gather", draft.add("Shape", q), draft.store(np.array(-1, np.int64)))
    return draft.add("Div", q, draft.add("Sqrt", draft.add("Cast", last, to=1)))


@enter(SEQUENCE)
def operator_attention(draft: Draft) -> None:
    """The operator of opset 23, on flat tensors."""
    heads, size, before = draft.integer(1, 3), draft.one_of([2, 4]), width(draft)
    total = heads * size
    q, k, v = (linear(draft, draft.x, before, total) for _ in range(3))
    mixed = draft.add("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads)
    draft.go_on(draft.add("Add", draft.x, linear(draft, mixed, total, before)))


@enter(SEQUENCE)
def contraction(draft: Draft) -> None:
    before, after = width(draft), draft.integer(2, 8)
    made = draft.add("Einsum", draft.x, draft.floats(before, after), equation="nld,de->nle")
    draft.go_on(made, *draft.shape[:2], after)


@enter(SEQUENCE)
def pooled_gate(draft: Draft) -> None:
    """The mean over positions says how much of each feature passes."""
    size = width(draft)
    mean = draft.add("ReduceMean", draft.x, draft.integers(1))
    draft.go_on(draft.add("Mul", draft.x, draft.add("Sigmoid", linear(draft, mean, size, size))))


@enter(SEQUENCE)
def tied(draft: Draft) -> None:
    """One matrix read twice: there, and back transposed."""
    size, hidden = width(draft), draft.integer(2, 6)
    weight = draft.floats(size, hidden)
    inner = draft.add("Relu", linear(draft, draft.x, size, hidden, weight))
    back = draft.add("Transpose", weight, perm=[1, 0])
    draft.go_on(draft.add("Add", draft.x, linear(draft, inner, hidden, size, back)))
