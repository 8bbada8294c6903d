"""The frames between the app and its children: a machine of two real channels, and streams changed at random.

What is promised (``docs/decisions/006-frames-on-standard-streams.md``): messages come out whole and in order whoever
sends them; anything else is one :class:`ProtocolError`, before more memory is taken than the limits allow; nothing is
waited for that the other end has not begun to send.
"""

from __future__ import annotations

import io
import json
import os
import threading
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from engine.protocol import (
    MAGIC,
    Limits,
    Message,
    ProtocolError,
    encode_frame,
    read_frame,
)
from engine.tensors import pack_tensor, unpack_tensor
from engine.worker.channel import Channel
from tests.fuzz.budget import for_a_while, given_for_a_while, quick
from tests.fuzz.framing import pieces
from tests.fuzz.mutations import EXTREMES, mutations

LIMITS = Limits(header_bytes=2000, buffers=50, total_bytes=20_000)
PYTHONS_OWN = 400_000
"""Bytes that objects made of a header of 2000 bytes may take, and the test's own."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.dictionaries(st.text(max_size=6), VALUES, max_size=4).map(lambda header: header | {"type": "t"})
BUFFERS = st.lists(st.binary(max_size=300), max_size=4)
FRAMES = st.tuples(HEADERS, BUFFERS)


def framed(header: dict[str, Any], buffers: Iterable[bytes] = ()) -> bytes:
    return b"".join(bytes(piece) for piece in encode_frame(header, list(buffers)))


def claim(header: int, lengths: Iterable[int], rest: bytes = b"") -> bytes:
    """A frame that says what it likes about what follows."""
    sizes = list(lengths)
    fixed = MAGIC + header.to_bytes(4, "big") + len(sizes).to_bytes(4, "big")
    return fixed + b"".join(size.to_bytes(8, "big") for size in sizes) + rest


# -- a second reader ---------------------------------------------------------------------------------------------------
@dataclass
class Read:
    """What comes out of a stream. ``end`` is ``end`` (between two frames) or ``error``."""

    messages: list[tuple[dict[str, Any], list[bytes]]] = field(default_factory=list)
    end: str = "end"


def expected(data: bytes, limits: Limits = LIMITS) -> Read:
    """The rules once more, over bytes that are all there: nothing of it is the code that is tested."""
    found = Read()
    while data:
        header, count = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
        sizes = [int.from_bytes(data[at : at + 8], "big") for at in range(12, 12 + 8 * min(count, limits.buffers), 8)]
        end = 12 + 8 * count + header + sum(sizes)
        allowed = header <= limits.header_bytes and count <= limits.buffers and sum(sizes) <= limits.total_bytes
        if data[:4] != MAGIC or not allowed or len(data) < max(12, end):
            return Read(found.messages, "error")
        at = 12 + 8 * count
        value = _strict_json(data[at : at + header])
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            return Read(found.messages, "error")
        at += header
        buffers = []
        for size in sizes:
            buffers.append(data[at : at + size])
            at += size
        found.messages.append((value, buffers))
        data = data[end:]
    return found


def _strict_json(data: bytes) -> Any:
    """RFC 8259: no NaN, no byte order mark, UTF-8 without lone surrogates; None for what is none of it."""

    def no_constant(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(data.decode("utf-8"), parse_constant=no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return value


class Dribble(io.RawIOBase):
    """A stream that gives ``data`` in these pieces, and remembers the most that was asked of it at once."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = [part for part in parts if part][::-1]
        self.most = 0

    def readinto(self, buffer: Any) -> int:
        self.most = max(self.most, len(buffer))
        if not self._parts or not len(buffer):
            return 0
        part = self._parts.pop()
        taken = min(len(part), len(buffer))
        buffer[:taken] = part[:taken]
        if taken < len(part):
            self._parts.append(part[taken:])
        return taken


def actual(data: bytes, cuts: Iterable[int] = ()) -> Read:
    """What :func:`read_frame` makes of it; fails for every error but the documented one, and for memory beyond the
    limits."""
    stream = Dribble(pieces(data, cuts))
    found = Read()
    tracemalloc.start()
    try:
        while (message := read_frame(stream, LIMITS)) is not None:
            found.messages.append((message.header, [bytes(buffer) for buffer in message.buffers]))
    except ProtocolError:
        found.end = "error"
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert stream.most <= max(LIMITS.header_bytes, 8 * LIMITS.buffers, LIMITS.total_bytes)
    assert peak < len(data) * 4 + LIMITS.header_bytes + LIMITS.total_bytes + PYTHONS_OWN
    return found


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """Frames one after the other, most of the time damaged: changed, cut short, mixed with another, or claiming."""
    frames = [framed(*frame) for frame in draw(st.lists(FRAMES, min_size=1, max_size=4))]
    kind = draw(st.sampled_from(("whole", "changed", "changed", "cut", "mixed", "claim", "noise", "header")))
    if kind == "mixed" and len(frames) > 1:
        at = draw(st.integers(1, len(frames[0])))
        frames[:2] = [frames[0][:at] + frames[1] + frames[0][at:]]
    elif kind == "claim":
        sizes = draw(st.lists(st.sampled_from([n for n in EXTREMES if n < 1 << 64]), max_size=60))
        number = draw(st.sampled_from((0, 12, LIMITS.header_bytes, LIMITS.header_bytes + 1, 0xFFFFFFFF)))
        frames.append(claim(number, sizes, draw(st.binary(max_size=40))))
    elif kind == "noise":
        frames.insert(draw(st.integers(0, len(frames))), draw(st.binary(min_size=1, max_size=40)))
    elif kind == "header":
        text = draw(
            st.sampled_from((b"null", b"{}", b"[1]", b'{"type":1}', b'{"type":"t"', b'{"type":NaN}', b"[" * 1900))
            | st.binary(max_size=60)
        )
        frames.append(claim(len(text), (), text))
    data = b"".join(frames)
    if kind == "cut":
        data = data[: draw(st.integers(0, len(data)))]
    elif kind == "changed":
        data = draw(mutations(data, framed({"type": "other"}, [b"0" * 50])))
    return data, draw(st.lists(st.integers(1, max(1, len(data))), max_size=6))


def check_stream(stream: tuple[bytes, list[int]]) -> None:
    data, cuts = stream
    wanted = expected(data)
    event(f"{min(len(wanted.messages), 3)} messages, {wanted.end}")
    assert actual(data, cuts) == wanted


@quick(300)
@given(streams())
def test_a_stream_is_read_as_the_rules_say(stream: tuple[bytes, list[int]]) -> None:
    check_stream(stream)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_stream_is_read_as_the_rules_say_for_long() -> None:
    given_for_a_while(streams(), check_stream, 1000)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("what", ["bytes of one", "bytes of all", "buffers", "header"])
def test_each_limit_is_exact(what: str, more: int) -> None:
    """Frames that are all there, up to their limit and one beyond it; a good one follows."""
    total, empty = LIMITS.total_bytes + more, len(framed({"type": "t", "x": ""})) - 12
    frame = {
        "bytes of one": framed({"type": "t"}, [bytes(total)]),
        "bytes of all": framed({"type": "t"}, [bytes(5000), bytes(total - 5000)]),
        "buffers": framed({"type": "t"}, [b""] * (LIMITS.buffers + more)),
        "header": framed({"type": "t", "x": "y" * (LIMITS.header_bytes - empty + more)}),
    }[what]
    found = actual(frame + framed({"type": "t"}))
    assert (len(found.messages), found.end) == ((0, "error") if more > 0 else (2, "end"))


class Claimed(Dribble):
    """Remembers the most memory that the process had when it was asked for bytes."""

    memory = 0

    def readinto(self, buffer: Any) -> int:
        self.memory = max(self.memory, psutil.Process().memory_info().rss)
        return super().readinto(buffer)


def test_a_claim_alone_costs_no_memory() -> None:
    """As much as the limits of a real channel allow, of which nothing comes."""
    before = psutil.Process().memory_info().rss
    limits = Limits()
    for claimed, got in (
        (claim(limits.header_bytes, (limits.total_bytes,), b"{"), 1),
        (claim(12, (limits.total_bytes,), b'{"type":"t"}'), 0),
    ):
        stream = Claimed([claimed])
        with pytest.raises(ProtocolError, match=f"closed after {got} of"):
            read_frame(stream)
        assert stream.memory - before < 32 << 20


# -- two channels ------------------------------------------------------------------------------------------------------
ROOM = 40_000
"""Bytes that may wait in a pipe (it holds 64 KiB), so that no sender has to wait for the reader."""


class ChannelMachine(RuleBasedStateMachine):
    """App and child, joined by two pipes. Who sends, at once with others or alone, is read whole and in order; who
    breaks a rule or leaves is noticed, and the other direction goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[Channel] = []
        self.writing: list[io.FileIO] = []
        self.reading: list[io.BufferedReader] = []
        pipes = [os.pipe(), os.pipe()]
        for own, other in ((0, 1), (1, 0)):
            incoming = io.BufferedReader(io.FileIO(pipes[own][0]), 1 << 12)
            outgoing = io.FileIO(pipes[other][1], "wb")
            self.reading.append(incoming)
            self.writing.append(outgoing)
            self.ends.append(Channel(incoming, outgoing))
        self.under_way: list[list[tuple[dict[str, Any], list[bytes]]]] = [[], []]
        """To each end, in the order in which it has to come out."""
        self.together: list[list[list[tuple[dict[str, Any], list[bytes]]]]] = [[], []]
        """Sent by several threads at once: each list is one thread's, in its order."""
        self.state = ["open", "open"]
        """Of what comes to each end: ``open``, ``broken``, ``closed``, and ``over`` once that was read."""

    def teardown(self) -> None:
        for to in (0, 1):
            self.writing[1 - to].close()
            if self.state[to] in ("open", "closed", "broken"):
                self._drain(to)
            self.reading[to].close()

    # -- steps -----------------------------------------------------------------------------------------------------
    @rule(to=st.sampled_from((0, 1)), frame=FRAMES)
    def send(self, to: int, frame: tuple[dict[str, Any], list[bytes]]) -> None:
        if self.state[to] != "open":
            return
        self._make_room(to)
        self.ends[1 - to].send(*frame)
        self.under_way[to].append(frame)

    @rule(to=st.sampled_from((0, 1)), count=st.integers(2, 4), size=st.sampled_from((0, 10, 3000)))
    def send_at_once(self, to: int, count: int, size: int) -> None:
        if self.state[to] != "open":
            return
        self._receive_all(to)
        mine = [
            [({"type": "t", "thread": n, "turn": turn}, [bytes([n]) * size]) for turn in (0, 1)] for n in range(count)
        ]
        together = threading.Barrier(count)

        def send_all(frames: list[tuple[dict[str, Any], list[bytes]]]) -> None:
            together.wait(10)
            for frame in frames:
                self.ends[1 - to].send(*frame)

        threads = [threading.Thread(target=send_all, args=(frames,)) for frames in mine]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        self.together[to] = mine
        self._receive_all(to)

    @rule(to=st.sampled_from((0, 1)))
    def receive(self, to: int) -> None:
        if self.under_way[to]:
            self._receive(to)

    @rule(to=st.sampled_from((0, 1)), how=st.sampled_from(("noise", "length", "cut", "json")))
    @precondition(lambda self: self.state.count("open") == 2)
    def break_a_rule(self, to: int, how: str) -> None:
        """What comes before it is still read; what it breaks is no other direction."""
        self._make_room(to)
        whole = framed({"type": "t"}, [b"x" * 20])
        data = {
            "noise": b"Traceback (most recent call last)",
            "length": claim(12, (1 << 62,), b'{"type":"t"}'),
            "cut": whole[:-3],
            "json": claim(5, (), b"{]}  "),
        }[how]
        self.ends[1 - to].send_bytes(data)
        if how == "cut":
            self.writing[1 - to].close()
        self.state[to] = "broken"

    @rule(to=st.sampled_from((0, 1)))
    @precondition(lambda self: self.state.count("open") == 2)
    def leave(self, to: int) -> None:
        self.writing[1 - to].close()
        self.state[to] = "closed"

    @rule(to=st.sampled_from((0, 1)))
    def read_to_the_end(self, to: int) -> None:
        if self.state[to] in ("broken", "closed"):
            self._drain(to)

    @rule(to=st.sampled_from((0, 1)))
    def send_to_nobody(self, to: int) -> None:
        """The other end is gone: the documented error, and no wait."""
        if self.state[to] == "over" and not self.writing[1 - to].closed:
            self.reading[to].close()
            with pytest.raises(OSError, match=r"pipe|closed"):
                self.ends[1 - to].send({"type": "t"}, [b"x"])
            self.writing[1 - to].close()

    # -- what comes out ----------------------------------------------------------------------------------------------
    def _make_room(self, to: int) -> None:
        if sum(len(framed(*frame)) for frame in self.under_way[to]) > ROOM:
            self._receive_all(to)

    def _receive_all(self, to: int) -> None:
        while self.under_way[to] or any(self.together[to]):
            self._receive(to)

    def _receive(self, to: int) -> None:
        message = self.ends[to].receive()
        assert isinstance(message, Message)
        got = (message.header, [bytes(buffer) for buffer in message.buffers])
        if self.under_way[to]:
            assert got == self.under_way[to].pop(0)
        else:
            assert got in [frames[0] for frames in self.together[to] if frames]
            self.together[to][got[0]["thread"]].pop(0)

    def _drain(self, to: int) -> None:
        """All that was sent, then the end as it has to be."""
        self._receive_all(to)
        if self.state[to] == "broken":
            with pytest.raises(ProtocolError):
                self.ends[to].receive()
        elif self.writing[1 - to].closed:
            assert self.ends[to].receive() is None
        self.state[to] = "over"


def test_channels_carry_what_was_sent() -> None:
    run_state_machine_as_test(ChannelMachine, settings=quick(60, stateful_step_count=25))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_channels_carry_what_was_sent_for_long() -> None:
    for_a_while(lambda how: run_state_machine_as_test(ChannelMachine, settings=how), 100, stateful_step_count=50)


# -- tensors in frames -------------------------------------------------------------------------------------------------
SIDES = st.integers(0, 4) | st.sampled_from((-1, 1 << 31, 1 << 62, 1 << 63, 1 << 64, 1 << 70, True, 1.0, None, "2", []))
DTYPES = st.sampled_from(
    ("str", "bool", "int8", "float32", "float64", "<f8", ">u2", "i4", "O", "V8", "M8[s]", "f4,f4", "(2,)f4",
     "complex64", "U4", "S3", "=f4", "|b1", "f", "", ",", "(", "2f4(", "{}", "é", "float32\x00", "bfloat16")
) | st.text(max_size=6)  # fmt: skip
METAS = st.fixed_dictionaries(
    {}, optional={"name": st.text(max_size=3) | st.none() | st.integers(),
                  "dtype": DTYPES | st.none() | st.integers(),
                  "shape": st.lists(SIDES, max_size=4) | st.just([1] * 33) | st.none() | st.text(max_size=2)},
)  # fmt: skip
VALID = st.tuples(
    st.sampled_from((("float32", 4), ("int64", 8), ("bool", 1))),
    st.integers(0, 3),
    st.sampled_from(([], [1], [0], [2])),
).map(lambda v: ({"name": "x", "dtype": v[0][0], "shape": [v[1], *v[2]]}, bytes(v[1] * v[0][1] * sum(v[2] or [1]))))
TENSORS = VALID | st.tuples(
    METAS | st.fixed_dictionaries({"name": st.just("x"), "dtype": DTYPES, "shape": st.lists(SIDES, max_size=3)}),
    st.integers(0, 9).map(lambda n: bytes(n * 4)) | st.binary(max_size=40) | st.sampled_from((b"[]", b'["a"]', b"[1]")),
)


def check_tensor(given_: tuple[dict[str, Any], bytes]) -> None:
    meta, data = given_
    try:
        name, array = unpack_tensor(meta, data)
    except ProtocolError:
        event("refused")
        return
    event("read")
    assert name == meta["name"]
    assert list(array.shape) == meta["shape"]
    assert array.dtype.kind in "biufO"
    assert array.dtype.kind == "O" or array.nbytes == len(data)
    again, buffer = pack_tensor(name, array)
    assert np.array_equal(unpack_tensor(again, buffer)[1], array, equal_nan=array.dtype.kind == "f")


@quick(500)
@given(TENSORS)
def test_a_tensor_is_read_or_refused(given_: tuple[dict[str, Any], bytes]) -> None:
    check_tensor(given_)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_tensor_is_read_or_refused_for_long() -> None:
    given_for_a_while(TENSORS, check_tensor, 2000)
