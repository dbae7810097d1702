"""A small reader of GGUF files: metadata, and tensors as float32."""

import struct

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
F32, Q4_1, Q8_0 = 0, 3, 8
BLOCK_BYTES = {Q4_1: 20, Q8_0: 34}  # of 32 weights


def read(path):
    """Returns the metadata, and a dict of name -> float32 array (rows, cols)."""
    data = memoryview(open(path, "rb").read())
    at = 0

    def scalar(fmt):
        nonlocal at
        v, = struct.unpack_from("<" + fmt, data, at)
        at += struct.calcsize("<" + fmt)
        return v

    def string():
        nonlocal at
        n = scalar("Q")
        at += n
        return bytes(data[at - n:at]).decode()

    def value(kind):
        if kind == STRING:
            return string()
        if kind == ARRAY:
            of, n = scalar("I"), scalar("Q")
            return [value(of) for _ in range(n)]
        return scalar(SCALARS[kind])

    magic, version = scalar("I"), scalar("I")
    if magic != 0x46554747 or version not in (2, 3):
        raise SystemExit(f"{path} is not a GGUF file of version 2 or 3")
    n_tensors, n_meta = scalar("Q"), scalar("Q")
    meta = {string(): value(scalar("I")) for _ in range(n_meta)}
    infos = []
    for _ in range(n_tensors):
        name, dims = string(), [scalar("Q") for _ in range(scalar("I"))]
        infos.append((name, dims[::-1], scalar("I"), scalar("Q")))
    align = meta.get("general.alignment", 32)
    start = (at + align - 1) // align * align
    return meta, {name: dequantize(data[start + off:], shape, kind) for name, shape, kind, off in infos}


def dequantize(raw, shape, kind):
    n = int(np.prod(shape))
    if kind == F32:
        return np.frombuffer(raw, np.float32, n).reshape(shape)
    if kind not in BLOCK_BYTES:
        raise SystemExit(f"tensor type {kind} cannot be read; F32 (0), Q4_1 (3) and Q8_0 (8) can")
    b = np.frombuffer(raw, np.uint8, n // 32 * BLOCK_BYTES[kind]).reshape(-1, BLOCK_BYTES[kind])
    d = b[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == Q8_0:
        w = d * b[:, 2:].view(np.int8).astype(np.float32)
    else:  # a scale, a minimum, 16 bytes of nibbles: low ones are weights 0-15, high ones 16-31
        m = b[:, 2:4].copy().view(np.float16).astype(np.float32)
        w = d * np.concatenate([b[:, 4:] & 15, b[:, 4:] >> 4], 1).astype(np.float32) + m
    return w.reshape(shape)


def quantize(w):
    """float32 (rows, cols) -> Q8_0 bytes: for 32 weights a scale and 32 × int8."""
    b = w.reshape(-1, 32).astype(np.float32)
    d = np.abs(b).max(1, keepdims=True) / 127
    q = np.rint(b / np.where(d == 0, 1, d)).astype(np.int8)
    return np.concatenate([d.astype(np.float16).view(np.uint8), q.view(np.uint8)], 1).tobytes()


def write(path, meta, tensors, align=32):
    """Writes GGUF 3. Metadata are (key, type code, value); matrices become Q8_0, vectors stay F32."""
    def string(s):
        s = s.encode()
        return struct.pack("<Q", len(s)) + s

    def value(kind, v):
        if kind == STRING:
            return string(v)
        if kind == ARRAY:
            of, items = v
            return struct.pack("<IQ", of, len(items)) + b"".join(value(of, x) for x in items)
        return struct.pack("<" + SCALARS[kind], v)

    head = struct.pack("<IIQQ", 0x46554747, 3, len(tensors), len(meta))
    for key, kind, v in meta:
        head += string(key) + struct.pack("<I", kind) + value(kind, v)
    body = b""
    for name, w in tensors.items():
        kind = Q8_0 if w.ndim == 2 else F32
        head += string(name) + struct.pack("<I", w.ndim) + struct.pack(f"<{w.ndim}Q", *w.shape[::-1]) + struct.pack("<IQ", kind, len(body))
        body += quantize(w) if kind == Q8_0 else w.astype(np.float32).tobytes()
        body += bytes(-len(body) % align)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % align) + body)
