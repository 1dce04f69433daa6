"""What weights learned from, and what they may be called for it."""

from __future__ import annotations

from collections.abc import Iterable

# What weights trained on a licence set may be called.
LICENCES = {"noncommercial": "CC-BY-NC-4.0", "open": "Apache-2.0"}
# How data whose licence we looked up is named; an import is named by its kind and the licence in its rows.
_CMU = "CMU Graphics Lab Motion Capture Database, HumanML3D captions (MIT)"
SOURCES = {
    "h3d": _CMU,
    "cmu_trial": _CMU,
    "bandai": "Bandai-Namco-Research-Motiondataset 1 and 2 (CC BY-NC 4.0)",
}


def sources_of(licences: Iterable[str]) -> list[str]:
    """Names of data from lines "kind: licence", as a pack keeps them."""
    named = ((SOURCES.get(line.partition(":")[0]), line) for line in licences)
    return list(dict.fromkeys(known or line.replace(";", ",") for known, line in named))


def licence_of(licence_set: str, sources: Iterable[str]) -> str:
    """Licence of weights that learned from these sources."""
    imported = [source for source in sources if source not in SOURCES.values()]
    if licence_set == "open" or not imported:
        return LICENCES[licence_set]
    return f"no commercial use, and the terms of its data: {'; '.join(imported)}"


def strictest(licence_sets: Iterable[str]) -> str:
    """What weights are that were made from all of these: open only if everything is."""
    return "open" if set(licence_sets) == {"open"} else "noncommercial"
