"""Translates a SAM template as CloudFormation does (IN.yaml OUT.json), beside the translator."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

source, target = map(Path, sys.argv[1:])
template = yaml_parse(source.read_text())
# What `sam deploy` does with a path: it uploads the file.
template["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://bucket/key"
target.write_text(json.dumps(transform(template, {}, SimpleNamespace(load=dict))))
