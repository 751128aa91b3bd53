"""Which inference component a request is for.

Owns the rules of the header that names one. It must never choose a copy: what a component's requests see of their endpoint is a route
like any other.
"""

from __future__ import annotations

from penstock.gateway import failures
from penstock.gateway.routing import Route


def narrowed(route: Route, name: str | None) -> Route:
    """`route`, or the part of it that `name`, the header's value, stands for.

    Raises AwsError (ValidationError) where the endpoint needs a name and there is none, has no component of that name or none at all, or
    where the component has no copy that serves.
    """
    if route.components is None:
        if name is not None:
            raise failures.inference_component_not_allowed()
        return route
    if not name:
        raise failures.inference_component_missing()
    part = route.components.get(name)
    if part is None:
        raise failures.no_such_inference_component(name, route.endpoint.name)
    if not part.variants[0].targets:
        raise failures.no_capacity()
    return part
