"""What the demo says when a promise did not hold."""

from registry.errors import TenonError


class DemoFailed(TenonError):
    code, status = "demo_failed", 500
    hint = "please report this with the output above; logs are in the workspace's logs folder"
