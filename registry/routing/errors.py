"""What is refused about rules before they are in force."""

from registry.errors import Conflict, InvalidInput


class RouteInvalid(InvalidInput):
    code = "route_invalid"
    hint = "nothing was changed: correct the routes and send all of them again"


class RouteRefused(InvalidInput):
    """Every rule is well formed, and together they let some request go where none may go."""

    code, status = "route_refused", 422
    hint = "nothing was changed: tenon route prove FILE shows a request for each finding"


class RoutingChanged(Conflict):
    code = "routing_changed"
    hint = "somebody published rules meanwhile: look at them, then publish again"
