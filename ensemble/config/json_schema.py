"""The configuration as a JSON Schema, by which editors complete keys and mark mistakes.

    # yaml-language-server: $schema=ensemble.schema.json        at the head of a YAML file

It knows every key with its type, limits, default and meaning, of installed packages' networks too; what two keys forbid each other
only `ensemble config` and `ensemble train` know.
"""

from __future__ import annotations

from typing import Any

from ensemble.config.schema import Experiment

FILE = "ensemble.schema.json"
TITLE = "Configuration of an ensemble"


def json_schema() -> dict[str, Any]:
    """The schema of a configuration file as people write it."""
    schema = Experiment.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]  # without it the file's name counts
    # Which trackers there are is known only now, so pydantic writes them where they are used.
    schema["$defs"]["TrackingConfig"] = schema["properties"]["tracking"]
    schema["properties"]["tracking"] = {"$ref": "#/$defs/TrackingConfig"}
    schedules = schema["$defs"]["TrainingConfig"]["properties"]["schedule"]
    names = sorted(schedules["discriminator"]["mapping"])
    whole = {key: schedules.pop(key) for key in ("oneOf", "discriminator")}
    schedules["anyOf"] = [{"enum": names}, whole]  # `schedule: one_cycle` is short for {name: one_cycle}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": TITLE}
