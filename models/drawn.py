"""Data that a seeded generator draws: tables, coloured shapes, sounds, sentences, signals on a graph.

Every function takes how many samples and a seed, and returns arrays by name, samples first: those a network reads, named
as its `forward` names them, and what is to be found, `label` or `label.OUTPUT`.  The same seed gives the same samples on
every machine, up to the last bit of sines and exponentials; other seeds give other samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Arrays = dict[str, np.ndarray]

KINDS = ("circle", "ring", "square", "triangle", "cross", "person")
SHAPES = 5  # the kinds without the person
CHUNK = 256  # pictures drawn at a time


def even_odd(count: int, seed: int) -> Arrays:
    """`bits` (count, 4): a number from 0 to 15, lowest bit first, each bit with analogue noise; odd is class 1."""
    draw = np.random.default_rng(seed)
    number = draw.integers(0, 16, count)
    bits = (number[:, None] >> np.arange(4)) & 1
    return {"bits": f32(bits + 0.2 * draw.standard_normal((count, 4))), "label": number % 2}


def clusters(count: int, seed: int) -> Arrays:
    """`features` (count, 8) of 4 classes, each of two clouds of points."""
    centres = np.random.default_rng(7).normal(0, 1.6, (4, 2, 8))
    draw = np.random.default_rng(seed)
    label, cloud = draw.integers(0, 4, count), draw.integers(0, 2, count)
    return {"features": f32(centres[label, cloud] + draw.standard_normal((count, 8))), "label": label}


def arm(count: int, seed: int) -> Arrays:
    """`angles` (count, 5) of the joints of an arm, -1 to 1 (times pi / 2): where its hand is, `label` (count, 3).

    The first joint turns the arm about the upright, the others bend it; links have lengths 1, 0.8, 0.6 and 0.3.
    """
    draw = np.random.default_rng(seed)
    angles = draw.uniform(-1, 1, (count, 5))
    bend = np.cumsum(angles[:, 1:] * np.pi / 2, axis=1)
    lengths = np.array([1, 0.8, 0.6, 0.3])
    out, up, turn = (lengths * np.sin(bend)).sum(1), (lengths * np.cos(bend)).sum(1), angles[:, 0] * np.pi / 2
    hand = np.stack([out * np.cos(turn), out * np.sin(turn), up], axis=1)
    return {"angles": f32(angles), "label": f32(hand + draw.normal(0, 0.01, hand.shape))}


def machines(count: int, seed: int, *, anomalies: bool = True) -> Arrays:
    """`frames` (count, 640): 5 frames of 128 bands of a machine's hum; every second one sounds unusual, if any may.

    `label` is `frames` again, what an autoencoder is to give back; `unusual` (count,) says which machines rattle, whine
    or have lost a harmonic.
    """
    draw = np.random.default_rng(seed)
    band, frame = np.arange(128), np.arange(5)[:, None]
    unusual = (np.arange(count) % 2 == 1) & anomalies
    pitch, load = draw.uniform(9, 11, count), draw.uniform(0.6, 1.2, count)
    sound = np.zeros((count, 5, 128))
    for i in range(count):
        fault = draw.integers(0, 3) if unusual[i] else -1
        for harmonic in range(1, 12):
            strength = load[i] * 2.4 / harmonic**0.5 * (0.4 if fault == 2 and harmonic in (3, 4) else 1)
            wobble = pitch[i] * harmonic + 0.4 * np.sin(frame + harmonic)
            sound[i] += strength * np.exp(-0.5 * ((band - wobble) / 1.8) ** 2)
        if fault == 0:  # a rattle: a frame louder at the top
            sound[i, draw.integers(0, 5), 64:] += draw.uniform(0.25, 0.8)
        if fault == 1:  # a whine between the harmonics
            sound[i] += draw.uniform(0.5, 1.3) * np.exp(-0.5 * ((band - draw.uniform(20, 110)) / 1.5) ** 2)
    frames = f32((sound + 0.25 * draw.standard_normal(sound.shape)).reshape(count, -1))
    return {"frames": frames, "label": frames, "unusual": unusual}


def pictures(count: int, seed: int, *, size: int, kinds: Sequence[int] = range(SHAPES)) -> Arrays:
    """One shape a picture, before clutter and noise, warm or cold in colour.

    `image` (count, 3, size, size) from 0 to 1, `kind` and `warm` (count,), `mask` (count, size, size) 1 where the shape
    is, `box` (count, 4): x1, y1, x2, y2 as shares of the side.
    """
    draw = np.random.default_rng(seed)
    kind, warm = np.asarray(kinds)[draw.integers(0, len(kinds), count)], draw.integers(0, 2, count)
    place = np.stack([*draw.uniform(0.35, 0.65, (2, count)), draw.uniform(0.17, 0.32, count)], axis=1)
    angle = np.where(kind == KINDS.index("person"), draw.uniform(-0.3, 0.3, count), draw.uniform(0, 6.28, count))
    parts = [
        _painted(draw, kind[i : i + CHUNK], warm[i : i + CHUNK], place[i : i + CHUNK], angle[i : i + CHUNK], size)
        for i in range(0, count, CHUNK)
    ]
    image, mask = (np.concatenate(part) for part in zip(*parts, strict=True))
    return {"image": image, "kind": kind, "warm": warm, "mask": mask, "box": _boxes(mask)}


def coloured_shapes(count: int, seed: int, *, size: int = 32) -> Arrays:
    """`image` (count, 3, size, size); 10 classes: 5 shapes, each warm or cold."""
    drawn = pictures(count, seed, size=size)
    return {"image": drawn["image"], "label": 2 * drawn["kind"] + drawn["warm"]}


def persons(count: int, seed: int) -> Arrays:
    """`image` (count, 3, 96, 96); class 1: there is a person (head, trunk, legs), class 0: another shape."""
    person = KINDS.index("person")
    drawn = pictures(count, seed, size=96, kinds=[*range(SHAPES), *[person] * SHAPES])
    return {"image": drawn["image"], "label": (drawn["kind"] == person).astype(np.int64)}


def masks(count: int, seed: int) -> Arrays:
    """`image` (count, 1, 48, 48) in grey; `label` (count, 48, 48) is 1 where the shape is."""
    drawn = pictures(count, seed, size=48)
    return {"image": drawn["image"].mean(axis=1, keepdims=True), "label": drawn["mask"].astype(np.int64)}


def boxes(count: int, seed: int) -> Arrays:
    """`image` (count, 3, 48, 48); `label.scores` (count,) is which of 5 shapes, `label.box` (count, 4) where it is."""
    drawn = pictures(count, seed, size=48)
    return {"image": drawn["image"], "label.scores": drawn["kind"], "label.box": drawn["box"]}


def keywords(count: int, seed: int, *, times: int = 49, bands: int = 10, channel: bool = True) -> Arrays:
    """`features` (count, 1, times, bands), without its 1 unless `channel`: 12 words, each two gliding tones.

    A word begins at another moment, is longer or shorter, higher or lower, and stands in noise.
    """
    tones = np.random.default_rng(11).uniform(0.05, 0.95, (12, 2, 3))  # pitch at the start, in the middle, at the end
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 12, count)
    start, length = draw.uniform(0, 0.3, count), draw.uniform(0.5, 0.7, count)
    at = (np.linspace(0, 1, times) - start[:, None]) / length[:, None]  # (count, times), 0 to 1 within the word
    loud = ((at > 0) & (at < 1)) * np.sin(np.pi * at.clip(0, 1)) ** 0.5
    higher, gain = draw.normal(0, 0.04, count), draw.uniform(0.7, 1.4, count)
    band, found = np.linspace(0, 1, bands), np.zeros((count, times, bands))
    for tone in range(2):
        first, middle, last = (tones[label, tone, i][:, None] for i in range(3))
        pitch = np.where(at < 0.5, first + 2 * at * (middle - first), middle + (2 * at - 1) * (last - middle))
        away = (band - (pitch + higher[:, None])[..., None]) / 0.09
        found += (gain[:, None] * loud)[..., None] * np.exp(-0.5 * away**2)
    features = f32(2 * found - 0.4 + 0.45 * draw.standard_normal(found.shape))
    return {"features": features[:, None] if channel else features, "label": label}


def waves(count: int, seed: int) -> Arrays:
    """`signal` (count, 60, 3): a sine, square, sawtooth or rising or falling tone, seen by 3 noisy sensors; 5 classes."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 5, count)
    time = np.arange(60) / 60
    cycles, phase = draw.uniform(3, 6, count)[:, None], draw.uniform(0, 1, count)[:, None]
    turn = {3: 0.5 + time, 4: 1.5 - time}
    speed = np.stack([turn.get(kind, np.ones(60)) for kind in label])
    at = cycles * np.cumsum(speed, axis=1) / 60 + phase
    sine = np.sin(2 * np.pi * at)
    wave = np.where((label == 1)[:, None], 0.8 * np.sign(sine), np.where((label == 2)[:, None], 2 * (at % 1) - 1, sine))
    gain = draw.uniform(0.6, 1.4, (count, 1, 3))
    return {"signal": f32(wave[..., None] * gain + 0.25 * draw.standard_normal((count, 60, 3))), "label": label}


CITIES, DAYS, HOURS, FILLERS = range(20, 44), range(44, 51), range(51, 63), range(2, 12)
FROM, TO, ON, AT, RETURN, UNKNOWN, WORDS = 12, 13, 14, 15, 16, 1, 64
SLOTS = ("none", "from", "to", "day", "hour", "day back", "hour back")


def sentences(count: int, seed: int, *, length: int = 20) -> Arrays:
    """`tokens` (count, length) int64 from 0 to 63; `label` (count, length) is the slot of each, -100 behind the end.

    A journey in words: where from and to, the day and the hour, perhaps the way back, in any order and among words that
    mean nothing.  What a city or a day is for, only the words before it say; 1 in 25 words is unknown.
    """
    draw = np.random.default_rng(seed)
    tokens, label = np.zeros((count, length), np.int64), np.full((count, length), -100)
    for i in range(count):
        words, slots = [], []
        there = [(FROM, CITIES, 1), (TO, CITIES, 2), (ON, DAYS, 3), (AT, HOURS, 4)]
        parts = [there[k] for k in draw.permutation(4)[: draw.integers(2, 5)]]
        if draw.random() < 0.5:
            parts += [(RETURN, range(0), 0), *((ON, DAYS, 5), (AT, HOURS, 6))[: draw.integers(1, 3)]]
        for word, values, slot in parts:
            fillers = draw.choice(FILLERS, draw.integers(0, 2)).tolist()
            chosen = [int(draw.choice(values))] if values else []
            words += [*fillers, word, *chosen]
            slots += [0] * (len(fillers) + 1) + [slot] * len(chosen)
        words, slots = words[:length], slots[:length]
        tokens[i, : len(words)], label[i, : len(words)] = words, slots
        tokens[i, : len(words)][draw.random(len(words)) < 0.04] = UNKNOWN
    return {"tokens": tokens, "label": label}


NODES = 24


def adjacency() -> Array:
    """(24, 24): a fixed graph of points in a square, near ones joined; symmetric, its largest eigenvalue 1."""
    at = np.random.default_rng(5).uniform(0, 1, (NODES, 2))
    near = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    joined = np.exp(-0.5 * (near / 0.2) ** 2) * ((near < 0.4) & (near > 0))
    return f32(joined / np.abs(np.linalg.eigvalsh(joined)).max())


def flows(count: int, seed: int) -> Arrays:
    """`signal` (count, 2, 24): two quantities at the nodes of the graph; `label` (count, 24): what becomes of them.

    The first spreads to neighbours and to theirs, the second holds it back.
    """
    draw = np.random.default_rng(seed)
    signal, a = draw.standard_normal((count, 2, NODES)), adjacency().astype(np.float64)
    x, y = signal[:, 0], signal[:, 1]
    near, far = x @ a, x @ a @ a
    flow = np.tanh(0.5 * x + 1.2 * near - 0.8 * far) * (1 / (1 + np.exp(-y - y @ a)))
    return {"signal": f32(signal), "label": f32(flow + 0.02 * draw.standard_normal(flow.shape))}


def f32(array: np.ndarray) -> Array:
    return np.ascontiguousarray(array, dtype=np.float32)


def _painted(
    draw: np.random.Generator, kind: np.ndarray, warm: np.ndarray, place: np.ndarray, angle: np.ndarray, size: int
) -> tuple[Array, np.ndarray]:
    """Pictures (n, 3, size, size) and masks (n, size, size)."""
    count = len(kind)
    axis = (np.arange(size) + 0.5) / size
    dx, dy = np.broadcast_arrays(axis[None, None] - place[:, :1, None], axis[None, :, None] - place[:, 1:2, None])
    c, s, r = (values[:, None, None] for values in (np.cos(angle), np.sin(angle), place[:, 2]))
    inside = _distance(kind, (c * dx + s * dy) / r, (c * dy - s * dx) / r)
    cover = (0.5 - inside * r * size).clip(0, 1)[:, None]  # (n, 1, size, size), soft at the edge
    ground = draw.uniform(0.2, 0.6, (count, 3, 1, 1)) + 0.3 * draw.uniform(-1, 1, (count, 3, 1, 1)) * (axis - 0.5)
    for _ in range(3):  # clutter: dull spots
        x, y = draw.uniform(0, 1, (2, count, 1, 1))
        spot = np.hypot(axis[None, None] - x, axis[None, :, None] - y) < 0.06
        ground = np.where(spot[:, None], draw.uniform(0.1, 0.8, (count, 1, 1, 1)), ground)
    strong, weak, green = draw.uniform(0.6, 1, count), draw.uniform(0, 0.4, count), draw.uniform(0.2, 0.7, count)
    colour = np.stack([np.where(warm == 1, strong, weak), green, np.where(warm == 1, weak, strong)], axis=1)
    image = ground + cover * (colour[..., None, None] - ground) + 0.07 * draw.standard_normal((count, 3, size, size))
    return f32(image.clip(0, 1)), cover[:, 0] > 0.5


def _distance(kind: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """How far outside its shape a point is, in radii, negative within; every picture has its own kind."""
    wide, tall, far = np.abs(u), np.abs(v), np.hypot(u, v)
    half = np.sqrt(3) / 2
    person = [
        np.hypot(u, v + 0.72) - 0.28,
        np.maximum(wide - 0.3, np.abs(v + 0.05) - 0.4),
        np.maximum(np.abs(wide - 0.2) - 0.1, np.abs(v - 0.65) - 0.35),
    ]
    shapes = (
        far - 1,
        np.maximum(far - 1, 0.55 - far),
        np.maximum(wide, tall) - 0.8,
        np.maximum(v - 0.5, np.maximum(half * u - 0.5 * v, -half * u - 0.5 * v) - 0.5),
        np.maximum(np.minimum(wide, tall) - 0.27, np.maximum(wide, tall) - 0.95),
        np.minimum.reduce(person),
    )
    return np.choose(kind[:, None, None], shapes)


def _boxes(mask: np.ndarray) -> Array:
    """(n, 4): where each mask begins and ends, as shares of the side."""
    size = mask.shape[1]
    ends = [(line.argmax(1), size - line[:, ::-1].argmax(1)) for line in (mask.any(1), mask.any(2))]
    (x1, x2), (y1, y2) = ends
    return f32(np.stack([x1, y1, x2, y2], axis=1) / size)
