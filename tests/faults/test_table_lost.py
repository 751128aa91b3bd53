"""The connection to control is lost: endpoints go on with the last table, and the next one is taken when control is back."""

from __future__ import annotations

import signal

from penstock.routes import Variant
from tests.waiting import until
from tests.wire.gateway_fixture import House, echo


def test_endpoints_outlive_control(house: House) -> None:
    house.serve(echo)
    runtime = house.client("sagemaker-runtime")

    async def cut() -> None:
        house.table_server.close()
        for writer in list(house._tables):
            writer.close()

    house.run(cut())
    house.paths.table_socket.unlink(missing_ok=True)
    for _ in range(5):
        assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x")["Body"].read() == b"you said x"
    ready = sum(event.kind == "ready" for event in house.events)
    house.endpoints["other"] = type(house.endpoints["ep"])(
        "other",
        "arn:aws:sagemaker:us-east-1:1:endpoint/other",
        "us-east-1",
        house.endpoints["ep"].account,
        (Variant("v", 1.0, house.endpoints["ep"].variants[0].replicas),),
    )
    house.table_server = house.run(house._listen_table())
    until(lambda: sum(event.kind == "ready" for event in house.events) > ready, what="the gateway to come back")

    def known() -> bool:
        try:
            return bool(runtime.invoke_endpoint(EndpointName="other", Body=b"y")["Body"].read() == b"you said y")
        except runtime.exceptions.ValidationError:
            return False

    until(known)


def test_a_table_that_cannot_be_read_is_left_out(house: House) -> None:
    house.serve(echo)

    async def nonsense() -> None:
        for writer in house._tables:
            writer.write(b'{"version": "nonsense"}\n')
            await writer.drain()

    house.run(nonsense())
    until(lambda: "cannot be read" in house.log())
    runtime = house.client("sagemaker-runtime")
    assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x")["Body"].read() == b"you said x"


def test_a_replica_with_a_new_epoch_gets_new_connections(house: House) -> None:
    from dataclasses import replace

    scripted = house.serve(echo)
    runtime = house.client("sagemaker-runtime")
    runtime.invoke_endpoint(EndpointName="ep", Body=b"x")
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replace(scripted.replica, epoch=2),)))
    until(lambda: scripted.open == 0, what="the old epoch's connection closed")
    runtime.invoke_endpoint(EndpointName="ep", Body=b"x")
    assert scripted.accepted == 2
    assert house.stop(signal.SIGTERM) == 0
