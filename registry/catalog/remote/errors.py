"""What only a catalog over HTTP can fail at; everything else is the registry's own error, by its code."""

from registry.errors import Conflict, Corrupt, TenonError


class Unreachable(TenonError):
    code, status = "registry_unreachable", 503
    hint = "check the URL and the network; nothing was lost, and the same command may be given again"


class RemoteRefused(TenonError):
    """A code that this version of Tenon does not know, or an answer that no Tenon gave."""

    code, status = "remote_refused", 502
    hint = "is this the URL of a Tenon control plane, and as new as this command?"


class AnswerInvalid(Corrupt):
    """The registry's answer does not fit what was sent or asked for."""

    code, status = "answer_invalid", 502
    hint = "do not rely on this registry before somebody has looked at it: tenon log verify"


class FileChanged(Conflict):
    code = "file_changed"
    hint = "nothing was published: wait until the folder is finished, then push it again"


class PullBusy(Conflict):
    code = "pull_busy"
    hint = "another pull writes this folder: wait for it, or choose another folder"
