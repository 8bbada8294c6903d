"""Every error the engine raises, as one tree with a stable ``code`` each.

The tree knows no HTTP and no Qt: ``embedded_server/errors.py`` maps a code to a status, ``gui/error_text.py`` to a
sentence. A worker sends an error as ``{"code", "message"}``; :func:`error_from_code` rebuilds it in the parent::

    EngineError
    ├── ModelError                 the model file, or loading it
    │   ├── ModelNotFound          model_not_found
    │   ├── ModelUnreadable        model_unreadable       missing, unreadable, not a regular file
    │   ├── ModelFormatUnknown     model_format_unknown
    │   ├── ModelCorrupt           model_corrupt          truncated, empty, damaged
    │   ├── ModelRefused           model_refused          class "refused": never loaded
    │   ├── ConsentRequired        needs_consent          class "program" without consent
    │   ├── ModelChanged           model_changed          the file changed after it was hashed
    │   ├── SidecarInvalid         sidecar_invalid
    │   ├── FrameworkMissing       framework_missing
    │   ├── LoadFailed             load_failed
    │   ├── LoadTimeout            load_timeout
    │   └── LoadCancelled          load_cancelled
    ├── RequestError               the caller's input
    │   ├── Malformed              malformed
    │   ├── UnsupportedMediaType   unsupported_media_type
    │   ├── InputTooLarge          input_too_large
    │   ├── UnusableInput          unusable_input         (also image_invalid, invalid_shape, … as ``code``)
    │   ├── Quarantined            quarantined
    │   ├── PredictionExpired      prediction_expired
    │   └── RequestCancelled       cancelled
    ├── Unavailable                try again later
    │   ├── Busy                   busy
    │   ├── Loading                loading
    │   ├── WorkerRestarted        worker_restarted
    │   ├── Draining               draining               (EngineClosed: the program is closing)
    │   ├── ModelFailed            model_failed
    │   ├── DeadlineExceeded       deadline_exceeded
    │   └── DeviceOutOfMemory      device_oom
    ├── SettingsInvalid            settings_invalid
    ├── ServerStartError           port_in_use | address_unavailable | permission_denied | server_self_check
    └── InternalError              internal
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of the tree. ``message`` is one sentence a person can read; of halves of characters, which no UTF-8 can
    hold, it has a question mark each, so that it can always be sent."""

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, details: str = "") -> None:
        self.message = _sendable(message)
        super().__init__(self.message)
        self.details = _sendable(details)
        """Longer text for a "Details" fold (a worker's last lines on stderr). Never sent over the network."""
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


def _sendable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class ModelError(EngineError):
    """The model file is the problem, or loading it."""


class ModelNotFound(ModelError):
    code = "model_not_found"


class ModelUnreadable(ModelError):
    code = "model_unreadable"


class ModelFormatUnknown(ModelError):
    code = "model_format_unknown"


class ModelCorrupt(ModelError):
    code = "model_corrupt"


class ModelRefused(ModelError):
    code = "model_refused"


class ConsentRequired(ModelError):
    """A *program* class model has no stored consent. ``fingerprint`` is what a consent would be bound to."""

    code = "needs_consent"

    def __init__(self, message: str, *, code: str | None = None, details: str = "", fingerprint: str = "") -> None:
        super().__init__(message, code=code, details=details)
        self.fingerprint = fingerprint


class ModelChanged(ModelError):
    code = "model_changed"


class SidecarInvalid(ModelError):
    code = "sidecar_invalid"


class FrameworkMissing(ModelError):
    code = "framework_missing"


class LoadFailed(ModelError):
    code = "load_failed"


class LoadTimeout(ModelError):
    code = "load_timeout"


class LoadCancelled(ModelError):
    code = "load_cancelled"


class RequestError(EngineError):
    """The caller's input is the problem; the same input will fail again."""


class Malformed(RequestError):
    code = "malformed"


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"


class InputTooLarge(RequestError):
    code = "input_too_large"


class UnusableInput(RequestError):
    code = "unusable_input"


class Quarantined(RequestError):
    code = "quarantined"


class PredictionExpired(RequestError):
    code = "prediction_expired"


class RequestCancelled(RequestError):
    code = "cancelled"


class Unavailable(EngineError):
    """Nothing is wrong with the input; ask again after ``retry_after_s`` seconds."""

    def __init__(self, message: str, *, code: str | None = None, details: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, code=code, details=details)
        self.retry_after_s = retry_after_s


class Busy(Unavailable):
    code = "busy"


class Loading(Unavailable):
    code = "loading"


class WorkerRestarted(Unavailable):
    code = "worker_restarted"


class Draining(Unavailable):
    code = "draining"


class EngineClosed(Draining):
    def __init__(self) -> None:
        super().__init__("Deskside is closing.")


class EngineLost(Unavailable):
    """The process that holds a shared engine has ended, or cannot be started."""

    code = "engine_lost"


class ModelFailed(Unavailable):
    code = "model_failed"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"


class DeviceOutOfMemory(Unavailable):
    code = "device_oom"


class SettingsInvalid(EngineError):
    code = "settings_invalid"


class ServerStartError(EngineError):
    """The server could not be switched on. ``port`` was asked for; ``free_port`` is one that was free just now."""

    code = "port_in_use"

    def __init__(
        self, message: str, *, code: str | None = None, details: str = "", port: int = 0, free_port: int | None = None
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.port = port
        self.free_port = free_port


class InternalError(EngineError):
    code = "internal"


UNUSABLE_INPUT_CODES = frozenset(
    {
        "unusable_input",
        "image_invalid",
        "image_too_large",
        "image_format",
        "table_invalid",
        "column_missing",
        "value_invalid",
        "invalid_shape",
        "invalid_dtype",
        "unknown_input",
        "model_error",
        "nothing_to_predict",
        "no_golden_sample",
    }
)
"""Codes an :class:`UnusableInput` may carry."""

_BY_CODE: dict[str, type[EngineError]] = {
    cls.code: cls
    for cls in (
        ModelNotFound, ModelUnreadable, ModelFormatUnknown, ModelCorrupt, ModelRefused, ConsentRequired, ModelChanged,
        SidecarInvalid, FrameworkMissing, LoadFailed, LoadTimeout, LoadCancelled, Malformed, UnsupportedMediaType,
        InputTooLarge, UnusableInput, Quarantined, PredictionExpired, RequestCancelled, Busy, Loading, WorkerRestarted,
        Draining, ModelFailed, DeadlineExceeded, DeviceOutOfMemory, EngineLost,
        SettingsInvalid, InternalError,
    )
}  # fmt: skip
_BY_CODE |= dict.fromkeys(UNUSABLE_INPUT_CODES, UnusableInput)


def error_from_code(code: str, message: str, details: str = "") -> EngineError:
    """The error a worker reported as ``code`` and ``message``; an unknown code becomes :class:`InternalError`."""
    cls = _BY_CODE.get(code)
    if cls is None:
        return InternalError(message, details=details)
    return cls(message, code=code, details=details)
