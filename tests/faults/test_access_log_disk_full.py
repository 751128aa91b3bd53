"""The access log's disk is full, or its file is gone: lines are lost and counted, requests are not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from penstock.gateway.accesslog import MAX_WAITING, AccessLog
from tests.waiting import until
from tests.wire.gateway_fixture import House, echo


def test_requests_go_on_and_control_hears_what_was_lost(tmp_path: Path) -> None:
    house = House(tmp_path / "h", {"PENSTOCK_ACCESS_LOG": "/dev/full"})
    try:
        house.start()
        house.serve(echo)
        runtime = house.client("sagemaker-runtime")
        for _ in range(5):
            assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x")["Body"].read() == b"you said x"
        until(lambda: sum(event.dropped for event in house.events) >= 5, what="the lost lines told")
        assert "lines are dropped" in house.log()
        assert house.stop() == 0
    finally:
        house.close()


async def wrote(log: AccessLog, *lines: bytes) -> None:
    for line in lines:
        log.add(line + b"\n")
    log.flush(asyncio.get_running_loop())
    await log.close()


def test_what_waits_is_bounded() -> None:
    log = AccessLog(Path("/nowhere/access.jsonl"))
    line = b"x" * 1024
    for _ in range(MAX_WAITING // 1024 + 7):
        log.add(line)
    assert log.dropped == 7


def test_a_full_file_is_put_aside_and_a_deleted_one_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    log = AccessLog(path, max_file=30)

    async def go() -> None:
        for number in range(6):
            log.add(json.dumps({"line": number}).encode() + b"\n")
            log.flush(asyncio.get_running_loop())
            await asyncio.wait_for(asyncio.shield(log._writing), 5) if log._writing else None
            if number == 4:
                path.unlink()
        await log.close()

    asyncio.run(go())
    aside = [json.loads(line)["line"] for line in Path(f"{path}.1").read_text().splitlines()]
    assert aside == [0, 1, 2]
    assert [json.loads(line)["line"] for line in path.read_text().splitlines()] == [5]
    assert log.dropped == 0


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path, really = tmp_path / "access.jsonl", os.write
    log = AccessLog(path)
    asyncio.run(wrote(log, b'{"a": 1}'))
    monkeypatch.setattr(os, "write", lambda file, data: really(file, data[:12]))
    asyncio.run(wrote(log, b'{"b": 1}', b'{"c": 1}'))
    monkeypatch.undo()
    asyncio.run(wrote(log, b'{"d": 1}'))
    assert path.read_text().splitlines() == ['{"a": 1}', '{"b": 1}', '{"c', '{"d": 1}']
    assert log.dropped == 1
