"""The neighbours as the control process serves them, by their names in signatures.

Owns nothing but that list. Each service loads its model when it is first called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from penstock.config import Settings
from penstock.control.datapoints import Datapoints
from penstock.control.neighbours import cloudwatch, sts
from penstock.control.neighbours.iam import Iam
from penstock.control.neighbours.logs import Logs
from penstock.control.neighbours.roles import Role, RoleStore
from penstock.control.neighbours.s3.body import Secrets
from penstock.control.neighbours.s3.service import S3Service
from penstock.control.neighbours.s3.store import ObjectStore
from penstock.control.service import Allow, AwsService, allow_all

FIRST_DAY = 1_511_913_600.0
"""Creation date of the role that was always there: 29 November 2017, when SageMaker was announced."""


def make_neighbours(
    settings: Settings,
    objects: ObjectStore,
    *,
    secrets: Secrets,
    datapoints: Datapoints,
    allow: Allow = allow_all,
    clock: Callable[[], float] = time.time,
) -> Mapping[str, AwsService | S3Service]:
    """`s3`, `sts`, `iam`, `logs` and `monitoring`. `secrets` and `allow` speak for the access keys; `objects` must be prepared."""
    default = Role(account=settings.account, name=settings.role_arn.rpartition("/")[2], created=FIRST_DAY)
    iam = Iam(RoleStore(settings.paths.roles, (default,)), clock)
    limit = settings.limits.control_body_bytes
    return {
        "s3": S3Service(
            objects, secrets=secrets, object_bytes=settings.limits.object_bytes, body_bytes=limit, allow=allow
        ),
        "sts": AwsService("sts", sts.OPERATIONS, body_bytes=limit, allow=allow),
        "iam": AwsService("iam", iam.operations(), body_bytes=limit, allow=allow),
        "logs": AwsService("logs", Logs(settings.paths.logs).operations(), body_bytes=limit, allow=allow),
        "monitoring": AwsService(
            "cloudwatch",
            cloudwatch.CloudWatch(datapoints, clock).operations(),
            body_bytes=limit,
            allow=allow,
            error_types=cloudwatch.ERROR_TYPES,
        ),
    }
