"""The ledger of cheap frames, and the lengths that are watched before frames are whole."""

from __future__ import annotations

import random

from h2.errors import ErrorCodes

from penstock.gateway.bidi.abuse import BURST, PREFACE_BYTES, REFILL, Ledger, Lengths

PREFACE = b"p" * PREFACE_BYTES


def frame(kind: int, length: int) -> bytes:
    return length.to_bytes(3) + bytes([kind, 0, 0, 0, 0, 1]) + b"x" * length


def announced(length: int) -> bytes:
    return length.to_bytes(3) + b"\0\0\0\0\0\1"


def test_a_burst_is_allowed_and_comes_back_in_time() -> None:
    ledger = Ledger(100.0)
    assert all(ledger.spend(1, 100.0) for _ in range(int(BURST)))
    assert not ledger.spend(1, 100.0)
    assert ledger.spend(1, 100.0 + 3 / REFILL)
    assert not ledger.spend(BURST + 1, 1_000_000.0), "no more than a burst is saved up"


def test_sending_earns() -> None:
    ledger = Ledger(0.0)
    for _ in range(int(BURST) * 3):
        ledger.earn(2)
        assert ledger.spend(1, 0.0)
        assert ledger.spend(1, 0.0)


def test_a_frame_too_long_is_seen_in_its_first_nine_bytes() -> None:
    assert Lengths(100, 1000).check(PREFACE + announced(100)) is None
    assert Lengths(100, 1000).check(PREFACE + announced(101)) is ErrorCodes.FRAME_SIZE_ERROR
    lengths = Lengths(100, 1000)
    assert lengths.check(PREFACE + frame(0, 100) + frame(0, 0)) is None
    assert lengths.check(announced(2**24 - 1)) is ErrorCodes.FRAME_SIZE_ERROR


def test_a_header_block_is_its_frames_together() -> None:
    lengths = Lengths(100, 250)
    assert lengths.check(PREFACE + frame(1, 100) + frame(9, 100)) is None
    assert lengths.check(frame(9, 51)) is ErrorCodes.ENHANCE_YOUR_CALM
    lengths = Lengths(100, 250)
    assert lengths.check(PREFACE + b"".join(frame(1, 100) for _ in range(10))) is None, "each is a block of its own"


def test_slicing_makes_no_difference(rng: random.Random) -> None:
    for _ in range(200):
        frames = [frame(rng.choice((0, 1, 4, 9)), rng.randrange(0, 110)) for _ in range(rng.randrange(1, 12))]
        data = PREFACE + b"".join(frames)
        whole = Lengths(105, 300).check(data)
        sliced, found, at = Lengths(105, 300), None, 0
        while at < len(data) and found is None:
            size = rng.choice((1, 2, 5, 9, 40))
            found = sliced.check(data[at : at + size])
            at += size
        assert found == whole
