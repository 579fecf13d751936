"""What the demo says when a promise did not hold."""

from registry.errors import Refused, TenonError


class DemoFailed(TenonError):
    code, status = "demo_failed", 500
    hint = "please report this with the output above; logs are in the workspace's logs folder"


class BaseBelowQuality(Refused):
    """The freshly trained base misses the gate; nothing was written."""

    code = "base_below_quality"
    hint = "train longer or with another seed"
