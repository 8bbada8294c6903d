"""Pre-consent for the bundled examples whose format is a program: their hash goes into the engine's package data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.consent import fingerprint  # noqa: E402  (the checkout need not be installed)
from engine.model_spec import ModelSpec, TrustClass  # noqa: E402

REGISTRY = ROOT / "engine" / "data" / "bundled_models.json"


def bundled_fingerprint(model_file: Path, format_: str) -> str:
    """The fingerprint of a bundled single-file model. Raises ModelUnreadable."""
    return fingerprint(
        ModelSpec(
            path=model_file.parent,
            model_file=model_file,
            format=format_,
            runtime=format_,
            task="image-classification",
            trust_class=TrustClass.PROGRAM,
            files=(model_file,),
        )
    )


def consent_to(name: str, model_file: Path, format_: str) -> dict[str, str]:
    """Write the model's fingerprint over the one ``name`` had; the whole registry comes back."""
    registry = {k: v for k, v in json.loads(REGISTRY.read_text(encoding="utf-8")).items() if v != name}
    registry[bundled_fingerprint(model_file, format_)] = name
    registry = dict(sorted(registry.items(), key=lambda item: item[1]))
    REGISTRY.write_text(json.dumps(registry, indent=2) + "\n", encoding="utf-8")
    return registry
