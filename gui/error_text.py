"""An error's code as words: what is true in one sentence, what to do in one more.

Sentences that name a file or a number come from the error itself (``message`` is one sentence by contract); this
table adds the advice, and replaces messages that only a programmer would understand.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import ConsentRequired, EngineError, InternalError


@dataclass(frozen=True, slots=True)
class ErrorText:
    """``sentence`` says what happened, ``advice`` what to do, ``details`` is for the fold (code first)."""

    sentence: str
    advice: str
    details: str
    code: str


_ADVICE = {
    "model_not_found": "Check that the file is still there, then open it again.",
    "model_unreadable": "Check that the file is there and that you may read it.",
    "model_format_unknown": "Deskside opens Keras, TensorFlow SavedModel, LiteRT, TorchScript, torch.export, ONNX, "
    "Hugging Face and BioImage.IO models.",
    "model_corrupt": "The file may be cut short. Copy or download it again, then open it once more.",
    "model_refused": "Save it as .keras, .safetensors, ONNX or TorchScript. Deskside never opens this kind.",
    "no_golden_sample": "Keep an answer that you know is right; the model is then checked against it.",
    "needs_consent": "Open it again and choose to run it, if you made it or trust who did.",
    "model_changed": "The file changed while it was being opened. Open it again.",
    "sidecar_invalid": "Correct the line in the .toml file beside the model, or take the file away.",
    "framework_missing": "Install the framework this model needs, then open it again.",
    "load_failed": "Details hold the last lines the model's process wrote.",
    "load_timeout": "The load showed no progress for a long time and was ended. Open it again.",
    "load_cancelled": "Nothing was opened.",
    "malformed": "Check the file and drop it again.",
    "unsupported_media_type": "Drop a kind of file this model works with.",
    "input_too_large": "Use a smaller file.",
    "unusable_input": "Check the file and drop it again.",
    "image_invalid": "The picture may be damaged. Save it again as PNG or JPEG.",
    "image_too_large": "Use a smaller picture.",
    "image_format": "Save it as PNG or JPEG and drop that.",
    "table_invalid": "Save the table again as CSV with one line of column names.",
    "column_missing": "Add the column, or open the model this table was made for.",
    "value_invalid": "Correct the value and drop the table again.",
    "invalid_shape": "The input does not have the shape this model takes.",
    "invalid_dtype": "The input does not have the number type this model takes.",
    "unknown_input": "Name the inputs as the model names them.",
    "model_error": "The model itself could not work with this input. Details hold what it said.",
    "nothing_to_predict": "Drop a picture or a table that holds something.",
    "quarantined": "This input ended the model's process before, so it is not run again.",
    "prediction_expired": "Run it again to change what is shown.",
    "cancelled": "Nothing was changed.",
    "busy": "Wait a moment and run it again.",
    "loading": "It runs once the model is ready.",
    "worker_restarted": "The model's process is starting again. Run it again in a moment.",
    "engine_lost": "Ask again: another process takes its place.",
    "draining": "The model is being closed.",
    "model_failed": "Start the model again from its chip at the top.",
    "deadline_exceeded": "Run it again, or give the model less to do.",
    "device_oom": "Close another model or program that uses the device's memory, then run it again.",
    "settings_invalid": "The settings stay as they were.",
    "port_in_use": "The server stays off until you choose.",
    "address_unavailable": "Check that this computer is connected to the network. The server stays off.",
    "permission_denied": "Choose a port from 1024 up. The server stays off.",
    "server_self_check": "A firewall or another program may be in the way. The server stays off.",
    "file_unreadable": "Check that the file is still there and that you may read it.",
    "file_too_large": "Use a smaller file.",
    "file_kind": "It stays untouched.",
    "camera_missing": "Connect a camera, then look again.",
    "camera_refused": "Allow it in the system's privacy settings, on Linux by joining the group video.",
    "camera_busy": "Close the program that uses it, then start again.",
    "camera_lost": "Check its cable, then start again.",
    "camera_support": "Install deskside[camera], or use another camera. Recorded clips can be played meanwhile.",
    "camera_ended": "Start it again; the model and your list are untouched.",
    "clip_unreadable": "Choose a folder of JPEG pictures, or an animated GIF, WebP or PNG.",
    "screen_refused": "Take a screenshot with the desktop's own tool, then paste it here with Ctrl+V.",
    "internal": "Copy the details and report them. The window keeps working.",
}  # fmt: skip

_SENTENCE = {
    "worker_restarted": "The model's process ended while it worked on this.",
    "deadline_exceeded": "The model took too long for this one.",
    "internal": "Something in Deskside went wrong.",
}


class FileProblem(EngineError):
    """A dropped file that never reached the engine. ``code`` is file_unreadable, file_too_large or file_kind."""

    code = "file_unreadable"


CAMERA_CODES = frozenset(code for code in _ADVICE if code.startswith(("camera_", "clip_")))


class FrameProblem(EngineError):
    """A camera, a clip or the screen gives no picture. ``code`` is one of ``CAMERA_CODES``, or screen_refused."""

    code = "camera_ended"


def error_text(error: BaseException) -> ErrorText:
    """The words for ``error``; anything that is no EngineError counts as ``internal``."""
    if not isinstance(error, EngineError):
        error = InternalError(f"{type(error).__name__}: {error}")
    sentence = _SENTENCE.get(error.code, error.message or "Something went wrong.")
    advice = _ADVICE.get(error.code, "")
    lines = [f"code     {error.code}", f"message  {error.message}"]
    if isinstance(error, ConsentRequired) and error.fingerprint:
        lines.append(f"sha256   {error.fingerprint}")
    if error.details:
        lines += ["", error.details]
    return ErrorText(sentence, advice, "\n".join(lines), error.code)
