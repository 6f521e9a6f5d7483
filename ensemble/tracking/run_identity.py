"""What a dashboard knows a run by: a hash of what binds its members, the configuration of each, and tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ensemble.config.groups import stored_groups
from ensemble.config.one_spelling import one_spelling
from ensemble.config.tta import TtaConfig
from ensemble.storage.identity import NEUTRAL

MAX_TAG = 64


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hex digits of what in a configuration may not change between two starts of one run."""
    binding = _binding(one_spelling(config))
    if not TtaConfig.model_validate((config.get("evaluation") or {}).get("tta") or {}).active:
        binding.pop("evaluation", None)  # so that runs of versions without it keep their hash
    return hashlib.sha256(json.dumps(binding, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _binding(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        key: _binding(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in section.items()
        if prefix + key not in NEUTRAL | {"compute.gpus_per_task"}
    }


def member_config(config: Mapping[str, Any], index: int, recipe: str) -> dict[str, Any]:
    """The configuration as one member saw it: of a mixed ensemble only its own group's model and training."""
    mine = {key: value for key, value in config.items() if key != "members"}
    for members, group in stored_groups(config):
        if index in members:
            votes = {key: group.get(key) for key in ("probabilities", "probabilities_sha256")}
            mine["model"] = group.get("model") or votes
            mine["training"] = group.get("training") or config.get("training")
    return {**mine, "member": index, "recipe": recipe}


def tag_names(config: Mapping[str, Any], more: tuple[str, ...]) -> tuple[str, ...]:
    """Method, data set and models of a configuration, then `more`; without repeats."""
    models = [config["model"]] if config.get("model") else [group.get("model") for group in config.get("members") or ()]
    named = [section.get("name") for section in (config.get("method"), config.get("data"), *models) if section]
    return tuple(dict.fromkeys(tag[:MAX_TAG] for tag in (*named, *more) if tag))
