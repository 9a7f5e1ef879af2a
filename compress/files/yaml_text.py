"""Settings as YAML text that loads as the same settings."""

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

WIDTH = 1 << 16  # so that values are not broken into lines


def yaml_text(document: Mapping[str, Any]) -> str:
    """The document as YAML, the innermost lists and mappings on one line each."""
    yaml, stream = YAML(), io.StringIO()
    yaml.Representer = _Representer
    yaml.default_flow_style = None
    yaml.width = WIDTH
    yaml.dump(document, stream)
    return stream.getvalue()


class _Representer(RoundTripRepresenter):
    """Quotes text that ruamel would write bare and could not read again: line ends, control characters, a first `?`."""

    def represent_str(self, data: str) -> ScalarNode:
        style = None if data.isprintable() and not data.startswith("?") else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Representer.add_representer(str, _Representer.represent_str)
