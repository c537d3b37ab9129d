"""What can go wrong when a stack is started, in sentences for people."""


class StackError(Exception):
    """The stack can't be started or kept up; the message says why and what to do."""


class PortTakenError(StackError):
    """Somebody else listens on a port that was asked for."""


class PartFailedError(StackError):
    """A process did not get ready; the message ends with the tail of its log."""


class NotReadyError(Exception):
    """A process does not answer (yet), or says that it is not ready."""
