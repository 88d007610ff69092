"""Every error the library raises on purpose: each message says what was wrong, where, and what to do."""

import re


class FsslibError(Exception):
    """Base class: `except FsslibError` catches whatever the library refuses."""

    def __str__(self) -> str:
        """The message, in which a broken file's endless word does not push what to do out of sight."""
        return re.sub(r"(\S{200})\S{200,}(\S{50})", r"\1…\2", super().__str__())


class EpisodeError(FsslibError, ValueError):
    """An episode whose tensors do not fit together; names the field, what was found and what was expected."""


class DatasetError(FsslibError, ValueError):
    """A data set that is missing, broken or asked for something it does not hold."""


class DownloadError(DatasetError, OSError):
    """A file that could not be fetched, or that is not what was expected."""


class ModelError(FsslibError, ValueError):
    """An unknown method or backbone, or options that exclude each other."""


class CheckpointError(FsslibError, ValueError):
    """A weight file that is missing, truncated, not finite or made for another model."""


class ProtocolError(FsslibError, ValueError):
    """An evaluation protocol that contradicts itself."""


class TrainingError(FsslibError, RuntimeError):
    """Training that cannot start or go on: not finite, nothing to train, a checkpoint of another run."""


class ParameterError(FsslibError, ValueError):
    """Unknown, mistyped or impossible parameters of an experiment."""


class OutputError(FsslibError, OSError):
    """A file or folder that cannot be written: says which one, why, and what to do; `errno` is the system's."""

    def __str__(self) -> str:
        return str(self.args[0])  # OSError would say the system's words alone
