"""Which host names are Amazon's and served here.

Owns that one question, for the proxy. It must never resolve a name or open a connection.
AWS's page: "AWS service endpoints" (each service's own page lists the forms).
"""

from __future__ import annotations

import re

_REGION = r"[a-z]{2}(?:-[a-z]+)+-\d"
_SUFFIX = r"\.amazonaws\.com(?:\.cn)?"
_SERVED = re.compile(
    rf"""(?:
        (?:api|runtime)(?:-fips)?\.sagemaker\.{_REGION}
      | sts | sts(?:-fips)?\.{_REGION}
      | iam | iam(?:-fips)? | iam\.{_REGION} | iam\.us-gov
      | (?:logs|monitoring)(?:-fips)?\.{_REGION}
      | application-autoscaling(?:-fips)?\.{_REGION}
      | (?:[a-z0-9.-]+\.)?s3(?:-fips)?(?:\.dualstack)?(?:[.-]{_REGION})?
    ){_SUFFIX}\Z""",
    re.VERBOSE | re.IGNORECASE,
)


def is_served(host: str) -> bool:
    """Whether `host` (without a port) is an AWS host of a service that Penstock answers for, in any region."""
    return _SERVED.match(host.removesuffix(".")) is not None
