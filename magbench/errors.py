"""Errors a user can act on: one clear sentence, and the next step."""


class MagbenchError(Exception):
    """Base of every error magbench raises on purpose.

    Args:
        message: One sentence that names the offending value.
        hint: What to do next, or None when the message says it already.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["MagbenchError"], tuple[str, str | None]]:
        """Cross process borders whole: message and hint both survive pickling."""
        return type(self), (self.message, self.hint)


class ConfigError(MagbenchError):
    """A name, parameter or file given by the user cannot be used."""


class MissingWeightsError(MagbenchError):
    """A learned model has no weights here; the hint says how to get them."""


class DownloadError(MagbenchError):
    """A file cannot be fetched, or is not the one that was asked for."""

    exit_code = 1


class VideoError(MagbenchError):
    """A video file cannot be read, or is not what the metric needs."""


class StoreError(MagbenchError):
    """The run folder cannot be read or written."""

    exit_code = 1


class IncompatibleRunsError(MagbenchError):
    """Two runs that cannot be put side by side."""


class SubmissionError(MagbenchError):
    """A submission bundle failed its checks."""
